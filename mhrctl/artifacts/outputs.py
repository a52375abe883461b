"""Every file name of a project, and the one way to write and read a stage's output folder.

An output folder is written aside and renamed into place with its `card.json` complete, so a folder with a card is whole.
Cards hold nothing that differs between two equal runs: what a run took (wall time, device) goes to `data/log/`, which
DVC does not look at, so that a stage run again with the same result reruns nothing after it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.errors import ArtifactError

CARD = "card.json"
TASKS = "tasks.json"
TRAINING_EXAMPLES = "training_tasks.parquet"
TEST_EXAMPLES = "test_tasks.parquet"
BACKBONE_EXAMPLES = "backbone_tasks.parquet"
TOKENIZER = "tokenizer"
ADAPTERS = "adapters.safetensors"
PREDICTIONS = "predictions.parquet"
SCORES = "scores.csv"
VALIDATION = "validation.csv"
LOG = "log.jsonl"
INDEX = "index.safetensors"
SOUP = "soup.safetensors"
SOUP_TASKS = "soup.csv"
ROUTING = "routing.json"
HEATMAPS = "heatmaps"
SIMILARITY = "similarity"

SMALL = 2**16
"""Bytes of an input up to which its content says whether it was edited; of a larger one, size and time do."""

LIBRARIES = ("torch", "transformers", "tokenizers", "pyarrow")


@dataclass(frozen=True)
class Project:
    """Where a project's files are, below the folder that holds params.yaml."""

    root: Path

    @property
    def params(self) -> Path:
        """The params file."""
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        """The folder of everything that stages write."""
        return self.root / "data"

    def output(self, stage: str, cell: str | None = None) -> Path:
        """The output folder of a stage, or of one cell of a stage."""
        return self.data / stage / cell if cell else self.data / stage

    def cell_file(self, cell: str) -> Path:
        """The resolved parameters of a cell, which its DVC stages depend on."""
        return self.data / "cells" / f"{cell}.json"

    @property
    def cell_index(self) -> Path:
        """The lists of cells that dvc.yaml expands."""
        return self.data / "cells" / "index.yaml"

    @property
    def stage_versions(self) -> Path:
        """The versions of the stages, of which each stage of dvc.yaml depends on its own."""
        return self.data / "cells" / "versions.json"

    @property
    def scratch(self) -> Path:
        """The folder for checkpoints of runs in progress."""
        return self.data / "scratch"

    @property
    def metrics(self) -> Path:
        """The folder of what git keeps of the results: scores and training logs."""
        return self.data / "metrics"

    def scores(self, cell: str) -> Path:
        """The scores of one cell."""
        return self.metrics / "evaluate" / f"{cell}.json"

    def training_log(self, cell: str) -> Path:
        """The pre-training log of one cell."""
        return self.metrics / "pretrain" / f"{cell}.csv"

    def alignment(self, name: str) -> Path:
        """The gradient alignment of one cell; the name ends in -start or -checkpoint if it is not of the end."""
        return self.metrics / "align" / f"{name}.json"

    def run_log(self, stage: str, cell: str | None = None) -> Path:
        """What the last run of a stage took: never an input of anything."""
        return self.data / "log" / (f"{stage}-{cell}.json" if cell else f"{stage}.json")


@dataclass(frozen=True)
class Card:
    """What an output folder says of itself.

    Attributes:
        stage: the stage that wrote it.
        params: the resolved parameters that decided it.
        parents: {name: sha256} of the artifacts that it was made from.
        facts: what a reader needs to check a fit: tasks, backbone fingerprint, counts.
        libraries: versions that the result may depend on.
        version: of the stage's results (`mhrctl.artifacts.versions`); None for what no stage wrote, and from before there were
            versions.
        files: {name: bytes} of all else in the folder; None from before cards named them.
        beside: {name: sha256} of what was written with it elsewhere: a training log, scores.
    """

    stage: str
    params: Mapping[str, Any]
    parents: Mapping[str, str]
    facts: Mapping[str, Any]
    libraries: Mapping[str, str]
    version: int | None = None
    files: Mapping[str, int] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], **facts: Any) -> Card:  # noqa: ANN401
        """Make the card of an output, with the hashes of its parents."""
        hashes = {name: digest(path) for name, path in parents.items()}
        return cls(stage, params, hashes, facts, _libraries(), STAGE_VERSIONS.get(stage))


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in (*LIBRARIES, "mhrctl")}


_edited: ContextVar[Callable[[], str | None]] = ContextVar("_edited", default=lambda: None)
"""Says which input of the running stage was edited since its start; set by `unedited`."""


@contextmanager
def unedited(settings: Callable[[], object], *inputs: Path) -> Iterator[None]:
    """Hold a stage's inputs to what they are now: nothing is put in place, and the block fails, if one is edited meanwhile.

    DVC hashes inputs when a command has ended, and would record an edit made while it ran as what the command had read. Nothing
    is hashed that is large, so that a stage starts at once.

    Args:
        settings: reads the stage's own settings; a change beside them does not matter.
        inputs: files and folders that the stage reads; those that are not there are passed over.

    Raises:
        ArtifactError: if an input is another at the end of the block, or when the block writes an output.
    """
    before = settings()
    states = {path: _state(path) for path in inputs}

    def edited() -> str | None:
        if settings() != before:
            return "its settings were"
        return next((f"{path} was" for path, state in states.items() if _state(path) != state), None)

    token = _edited.set(edited)
    try:
        yield
        _require_unedited()
    finally:
        _edited.reset(token)


def _require_unedited() -> None:
    if what := _edited.get()():
        raise ArtifactError(f"{what} edited while this ran, so its result stands for nothing and was not kept; run it again")


def _state(path: Path) -> dict[str, object]:
    """{file: what tells whether it was edited} of a file or of the files in a folder; empty if it is not there."""
    found: dict[str, object] = {}
    for file in _files(path) if path.exists() else ():
        stat = file.stat()
        found[str(file)] = digest(file) if stat.st_size <= SMALL else (stat.st_size, stat.st_mtime_ns)
    return found


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Write an output folder: yields a folder aside, which replaces `folder` only when the block ends without an error."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    if not (aside / CARD).exists():
        raise AssertionError(f"{folder} would be written without a card")
    _require_unedited()
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old)
    else:
        aside.rename(folder)


def write_card(folder: Path, card: Card, *, beside: Sequence[Path] = ()) -> None:
    """Finish an output folder, when all its other files, and those `beside` it, are written."""
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder) if file != folder / CARD}
    write_json(folder / CARD, vars(replace(card, files=files, beside={path.name: digest(path) for path in beside})))


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON is any tree
    """Write JSON in one step, with one key a line, so that git shows what changed."""
    _require_unedited()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(value, indent=1, sort_keys=False, default=dict) + "\n")
    aside.replace(path)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in one step."""
    _require_unedited()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    aside.replace(path)


def require_replaceable(folder: Path, stage: str) -> None:
    """Check that a folder that a user named can be written: that it is new, empty, or an output of the same stage.

    Raises:
        ArtifactError: if it holds anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    card = _card_of(folder)
    if card is None or card.stage != stage:
        raise ArtifactError(f"{folder}: holds other things, which an {stage} would replace; name a new folder")


def folder_name(task: str) -> str:
    """A folder's name for a task: its own, with nothing in it that could lead elsewhere."""
    return re.sub(r"[^\w.-]+", "_", task).lstrip(".") or "_"


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read JSON that a stage wrote."""
    return json.loads(path.read_text())


def read_card(folder: Path, *, stage: str, command: str) -> Card:
    """Read the card of an input folder.

    Args:
        folder: an output folder.
        stage: the stage that must have written it.
        command: what to run if it is not there.

    Raises:
        ArtifactError: if the folder is missing, unfinished, another stage's, or made by another version of the stage.
    """
    try:
        card = Card(**json.loads((folder / CARD).read_text()))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no finished {stage} output; run `{command}` or `dvc repro`") from None
    except (json.JSONDecodeError, TypeError):
        raise ArtifactError(f"{folder / CARD}: not a card; remove {folder} and run `{command}`") from None
    if card.stage != stage:
        raise ArtifactError(f"{folder}: written by stage {card.stage}, expected {stage}; run `{command}`")
    if card.version != STAGE_VERSIONS[stage]:
        made_by = "an mhrctl without stage versions" if card.version is None else f"version {card.version} of {stage}"
        raise ArtifactError(
            f"{folder}: made by {made_by}, this mhrctl has version {STAGE_VERSIONS[stage]} with other results; run `{command}`,"
            " or `mhrctl grid sync` and `dvc repro`"
        )
    return card


def stands(
    folder: Path, stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], *, beside: Sequence[Path] = ()
) -> bool:
    """Whether an output folder is what its stage would write now.

    Its card tells: all but the facts, which are results, is compared with what the card would hold now (of `parents`, files
    or folders, the hashes, once all else is equal), and with the files that are there, in the folder and `beside` it.
    """
    card = _card_of(folder)
    if card is None or card.files is None or card.parents.keys() != parents.keys():
        return False
    now = (stage, STAGE_VERSIONS[stage], _libraries(), json.loads(json.dumps(params, default=dict)))
    return (
        (card.stage, card.version, card.libraries, card.params) == now
        and all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in card.files.items())
        and {path.name: digest(path) for path in beside} == card.beside
        and not any(_is_outdated(path.parent) for path in parents.values())
        and all(digest(path) == card.parents[name] for name, path in parents.items())
    )


def _card_of(folder: Path) -> Card | None:
    """The card in a folder; None if there is none, or something else of its name."""
    try:
        return Card(**json.loads((folder / CARD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_outdated(folder: Path) -> bool:
    """Whether another version of its stage wrote a folder, so that `read_card` would refuse it."""
    card = _card_of(folder)
    return card is not None and card.version != STAGE_VERSIONS.get(card.stage)


def require_backbone(card: Card, folder: Path, fingerprint: str, backbone: Path) -> None:
    """Check that an artifact was made for this backbone.

    Raises:
        ArtifactError: if it was not.
    """
    if card.facts["backbone"] != fingerprint:
        raise ArtifactError(
            f"{folder}: made for another backbone ({card.facts['backbone'][:12]}, not {fingerprint[:12]} in {backbone});"
            " run its stage again or `dvc repro`"
        )


def require_parent(card: Card, folder: Path, name: str, parent: Path, command: str) -> None:
    """Check that an artifact was made from a file as it is now.

    Raises:
        ArtifactError: if the file has changed since.
    """
    if card.parents[name] != digest(parent):
        raise ArtifactError(f"{folder}: {parent} has changed since; run `{command}` or `dvc repro`")


def require_tasks(card: Card, folder: Path, tasks: list[str]) -> None:
    """Check that an artifact was made for these tasks, in this order.

    Raises:
        ArtifactError: if it was not.
    """
    made_for = card.facts["tasks"]
    if made_for != tasks:
        other = sorted(set(made_for) ^ set(tasks)) or ["their order"]
        raise ArtifactError(f"{folder}: made for other tasks (differs in {other[0]}); run its stage again or `dvc repro`")


def digest(path: Path) -> str:
    """The sha256 of a file, or of a folder's files and their names."""
    total = hashlib.sha256()
    for file in _files(path):
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    """A file, or a folder's files but for DVC's .gitignore, sorted."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in found if file.is_file() and file.name != ".gitignore"]


@contextmanager
def logging_run(path: Path, **facts: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Record what a run took, beside and never inside its output.

    Args:
        path: the file to write.
        facts: of the run, such as the device.

    Yields:
        The record, to which the block may add.
    """
    record: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        **facts,
    }
    start = time.monotonic()
    yield record
    write_json(path, record | {"seconds": round(time.monotonic() - start, 2)})
