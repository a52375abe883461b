"""Cells that left the grid leave things behind: outputs, scores, logs, checkpoints, and their entries in dvc.lock.

DVC removes none of it. A cell that comes back into the grid is restored from DVC's cache, which this does not touch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import CARD, Project
from mhrctl.artifacts.ownership import foreign_files
from mhrctl.artifacts.writing import replacing, write_text
from mhrctl.config.cells import Cell, Output
from mhrctl.config.methods import BACKBONE
from mhrctl.errors import ArtifactError
from mhrctl.projects.pipeline import PIPELINE
from mhrctl.tools.grid import stage_cells

CELL_STAGES = ("pretrain", "average", "adapt", "evaluate")
"""These stages have an output folder a cell."""
FOLDED = {name: stage for name, (stage, _) in PIPELINE.items() if name != stage}
"""{stage of dvc.yaml: the stage whose folder it writes to}, where the two have different names."""
WRITTEN = (".json", ".csv")
"""Endings of the scores and logs that stages write."""
CELL_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*-s\d+")
ALIGNED = re.compile(r"(.*?)(-start|-checkpoint)?")
CHECKPOINT = re.compile(r"(?:pretrain|adapt)-(.*?)(-part\d+)?(\.previous)?\.safetensors(\.\d+\.damaged)?")


@dataclass(frozen=True)
class Leftovers:
    """Leftovers are what is left of cells that are not in the grid.

    Attributes:
        paths: {cell: its files and folders}.
        entries: stages in dvc.lock that dvc.yaml no longer has, such as `adapt@poly-s0`.
    """

    paths: Mapping[str, Sequence[Path]]
    entries: Sequence[str]

    @property
    def cells(self) -> list[str]:
        """Which cells they are of, in the order of their names."""
        return sorted({*self.paths, *(entry.partition("@")[2] for entry in self.entries)})

    def entries_of(self, cell: str) -> list[str]:
        """List the entries of dvc.lock that are a cell's."""
        return [entry for entry in self.entries if entry.partition("@")[2] == cell]

    def size(self, cell: str) -> int:
        """Add up the bytes of a cell's files."""
        return sum(_size(path) for path in self.paths.get(cell, ()))


def find_leftovers(cells: Sequence[Cell], project: Project, others: Iterable[Output] = ()) -> Leftovers:
    """Look for what no cell of the grid needs; a pre-training or average that another cell starts from is needed.

    Args:
        cells: of the grid.
        project: where to look.
        others: outputs that settings of the grid name.
    """
    needed = _needed(cells)
    for output_stage, cell in others:
        needed[output_stage].add(cell.name)
    anything = set().union(*needed.values())
    paths: dict[str, list[Path]] = {}
    for stage, name, path in _cell_paths(project):
        known = needed[stage] if stage else anything
        if CELL_NAME.fullmatch(name) and name not in known:  # what is not named like a cell may be the user's
            paths.setdefault(name, []).append(path)
    entries = [
        entry
        for entry in _lock_entries(project)
        if (stage := FOLDED.get(entry.partition("@")[0], entry.partition("@")[0])) in needed
        and entry.partition("@")[2] not in {"", *needed[stage]}
    ]
    return Leftovers(paths, entries)


def set_apart(leftovers: Leftovers, project: Project) -> tuple[Leftovers, Leftovers]:
    """Divide leftovers into those that can be had again and those that no stage makes again.

    What a command made by hand, without DVC, and what was imported is in no cache.

    Args:
        leftovers: of cells.
        project: where they are.

    Returns:
        Those whose outputs DVC's cache has, or that have none; and the others.
    """
    outputs = {cell: [path for path in paths if path.is_dir()] for cell, paths in leftovers.paths.items()}
    cache = _cache(project) if any(outputs.values()) else None
    cached = _cached(project, cache) if cache else set()
    by_hand = {cell for cell, folders in outputs.items() if any(folder not in cached for folder in folders)}
    return (
        Leftovers(
            {cell: paths for cell, paths in leftovers.paths.items() if cell not in by_hand},
            [entry for entry in leftovers.entries if entry.partition("@")[2] not in by_hand],
        ),
        Leftovers(
            {cell: paths for cell, paths in leftovers.paths.items() if cell in by_hand},
            [entry for entry in leftovers.entries if entry.partition("@")[2] in by_hand],
        ),
    )


def _cache(project: Project) -> Path | None:
    """The folder of DVC's cache; None in a project without one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project.root)) as repo:
            return Path(repo.cache.local.path)
    except DvcException:
        return None


def _cached(project: Project, cache: Path) -> set[Path]:
    """The folders of which dvc.lock has the hash, and the cache the content."""
    if not _lock_file(project).exists():
        return set()
    text = _lock_file(project).read_text(encoding="utf-8")
    hashes = dict(re.findall(r"^    - path: (data/\S+)\n      hash: md5\n      md5: ([0-9a-f]+\.dir)$", text, re.MULTILINE))
    return {project.root / path for path, of in hashes.items() if _is_cached(cache, of)}


def _is_cached(cache: Path, folder: str) -> bool:
    """Whether a cache has a folder, by its hash, and all files in it."""
    listing = _object(cache, folder)
    if not listing.is_file():
        return False
    return all(_object(cache, file["md5"]).is_file() for file in json.loads(listing.read_bytes()))


def _object(cache: Path, of: str) -> Path:
    return cache / of[:2] / of[2:]


def prune(leftovers: Leftovers, project: Project) -> None:
    """Remove leftovers: first the entries of dvc.lock, then the files and what DVC's .gitignore files say of them.

    Raises:
        ArtifactError: if DVC is at work in the project, a folder is being written, or holds what is none of ours; then nothing
            is removed.
    """
    folders = [path for paths in leftovers.paths.values() for path in paths if path.is_dir() and not path.is_symlink()]
    for folder in folders:
        if foreign := [path for path in foreign_files(folder) if path != folder / CARD]:
            raise ArtifactError(f"{folder}: holds {foreign[0].relative_to(folder)}, which no stage wrote; move it away first")
    if leftovers.entries:  # first, since DVC may hold the lock file: then nothing is removed
        _remove_entries(set(leftovers.entries), project)
    for paths in leftovers.paths.values():
        for path in paths:
            if path in folders:
                with locked(path):
                    shutil.rmtree(path)
            else:
                path.unlink()
            _unignore(path)


def _needed(cells: Sequence[Cell]) -> dict[str, set[str]]:
    """{stage with folders of cells: the cells that it has}."""
    by_stage = stage_cells(list(cells), by_index=())  # which stage of adaptation a cell has does not matter
    return {
        "pretrain": {*by_stage["pretrain"], *by_stage["pretrain_extra"]},
        "average": {*by_stage["average"]},
        "adapt": {*by_stage["adapt"], *by_stage["adapt_soup"]},
        "evaluate": {*by_stage["evaluate"], *by_stage["evaluate_zero_shot"], BACKBONE},
    }


def _cell_paths(project: Project) -> Iterator[tuple[str, str, Path]]:
    """(stage, cell, path) of all that looks like a cell's; without a stage, what is of a cell whatever its stage."""
    for stage in CELL_STAGES:
        for path in sorted(project.output(stage).glob("[!.]*")):
            yield stage, path.name, path
        for path in sorted(path for path in project.metrics.glob(f"{stage}/*.*") if path.suffix in WRITTEN):
            yield stage, path.stem, path
        for path in sorted(project.run_log(stage).parent.glob(f"{stage}-*.json")):
            yield stage, path.stem.removeprefix(f"{stage}-"), path
    for path in sorted(project.harness("*").parent.glob("*.json")):
        yield "", path.stem, path
    for path in sorted(project.alignment("*").parent.glob("*.json")):
        yield "", _group(ALIGNED, path.stem), path
    for stage in ("pretrain", "adapt"):
        for path in sorted(project.scratch.glob(f"{stage}-*.safetensors*")):
            yield stage, _group(CHECKPOINT, path.name), path


def _group(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.fullmatch(text)
    return match[1] if match else ""


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _lock_file(project: Project) -> Path:
    return project.root / "dvc.lock"


def _lock_entries(project: Project) -> list[str]:
    """The stages that dvc.lock has an entry of: its keys two spaces deep, since reading all of a long one takes seconds."""
    if not _lock_file(project).exists():
        return []
    return re.findall(r"^  ([\w@.-]+):$", _lock_file(project).read_text(encoding="utf-8"), re.MULTILINE)


def _remove_entries(entries: set[str], project: Project) -> None:
    """Write dvc.lock without some entries, in one step, while DVC is kept from writing it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    path = _lock_file(project)
    try:
        with Repo(str(project.root)) as repo, repo.lock:
            yaml = YAML()
            yaml.default_flow_style = False
            content: dict[str, Any] = yaml.load(path)
            content["stages"] = {name: entry for name, entry in content["stages"].items() if name not in entries}
            with replacing(path) as aside, aside.open("w", encoding="utf-8") as stream:
                yaml.dump(content, stream)
    except DvcException as error:
        raise ArtifactError(f"{path}: cannot be changed now: {str(error).splitlines()[0]}") from None


def _unignore(path: Path) -> None:
    """Take a path out of the .gitignore beside it, as `dvc remove` does."""
    ignored = path.with_name(".gitignore")
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []
    if f"/{path.name}" not in lines:
        return
    if kept := [line for line in lines if line != f"/{path.name}"]:
        write_text(ignored, "".join(f"{line}\n" for line in kept))
    else:
        ignored.unlink()
