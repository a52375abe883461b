"""Data by hash, to and from a DVC remote, without touching the project that it belongs to.

A depot is a bare DVC project in the project's scratch folder, with the same remote and the same cache. It needs only DVC's
public commands (`config`, `add`, `push`, `pull`) and its documented `.dvc` files, takes no lock of the project, and does not
read its pipeline.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from configobj import ConfigObj  # type: ignore[import-untyped]  # DVC reads its settings with it
from ruamel.yaml import YAML

from mhrctl.errors import ArtifactError, ParamsError, unknown
from mhrctl.running.fallback import run_dvc

SCRATCH = Path(".dvc", "tmp")
COPIES = "reflink,copy"  # link types of files that anybody may write to
LINKS = "reflink,hardlink,copy"
"""Link types of files that are only read: no second copy on disk, and write-protected where that is by a hard link."""


@dataclass(frozen=True)
class Depot:
    """A bare DVC project beside another."""

    root: Path  # of the DVC project whose files it carries; their paths are relative to it
    folder: Path  # of the depot

    def pull(self, hashes: Mapping[str, str]) -> None:
        """Put what the remote has under these hashes in its place in the project, for {path: hash}.

        Raises:
            ArtifactError: if the remote does not have it, or cannot be reached.
        """
        items = self._name("pull", hashes)
        try:
            self._dvc("pull", items.values())
        except ArtifactError as error:
            lacking = [path for path, item in items.items() if not item.exists()]
            raise ArtifactError(f"the DVC remote did not give {', '.join(lacking) or 'its data'}: {error}") from None
        for path, item in sorted(items.items()):
            target = self.root / path
            remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(item, target)

    def push(self, hashes: Mapping[str, str]) -> None:
        """Copy what the cache has under these hashes, {path: hash}, to the remote, if that does not have it.

        Raises:
            ArtifactError: if the remote cannot be reached. What the cache does not have is missed by who pulls it.
        """
        self._dvc("push", self._name("push", hashes).values())

    def add(self, paths: Iterable[str], *, keep: bool) -> dict[str, str]:
        """Bring files and folders of the project, which keep their places if asked to, into the cache, as {path: hash}.

        Raises:
            ArtifactError: if one is not there.
        """
        items = {path: self.folder / f"add-{number}" for number, path in enumerate(paths)}
        for path, item in items.items():
            source = self.root / path
            if not source.exists():
                raise ArtifactError(f"{source}: not there")
            if not keep:
                shutil.move(source, item)
            elif source.is_dir():
                shutil.copytree(source, item)
            else:
                shutil.copyfile(source, item)
        self._dvc("add", items.values(), suffix="")
        notes = {path: YAML(typ="safe", pure=True).load(item.with_suffix(".dvc")) for path, item in items.items()}
        return {path: str(note["outs"][0]["md5"]) for path, note in notes.items()}

    def _name(self, action: str, hashes: Mapping[str, str]) -> dict[str, Path]:
        """Write the `.dvc` files by which DVC knows data of these hashes; returns {path: the data's place in the depot}."""
        items = {path: self.folder / f"{action}-{number}" for number, path in enumerate(hashes)}
        for path, item in items.items():
            out = {"md5": hashes[path], "hash": "md5", "path": item.name}
            item.with_suffix(".dvc").write_text(json.dumps({"outs": [out]}))  # JSON is YAML
        return items

    def _dvc(self, action: str, items: Collection[Path], suffix: str = ".dvc") -> None:
        if items:
            run_dvc(self.folder, action, *(f"{item.name}{suffix}" for item in items))


@contextmanager
def open_depot(root: Path, remote: str, *, links: str) -> Iterator[Depot]:
    """Open a depot of a DVC project for one of its remotes, which takes files from the cache by `COPIES` or `LINKS`.

    Raises:
        ParamsError: if the project has no such remote.
    """
    settings = require_remote(root, remote)
    with TemporaryDirectory(dir=root / SCRATCH, prefix="depot-") as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        config = ConfigObj(encoding="utf-8")
        config.filename = str(folder / ".dvc" / "config")
        config["core"] = {"no_scm": True, "analytics": False, "remote": remote, "site_cache_dir": str(folder / ".dvc" / "site")}
        config["cache"] = {"dir": settings.get("cache.dir", str(root.resolve() / ".dvc" / "cache")), "type": links}
        prefix = f"remote.{remote}."
        options = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
        config[f'remote "{remote}"'] = options
        config.write()
        yield Depot(root, folder)


def read_settings(root: Path) -> Mapping[str, str]:
    """DVC's settings of a project, {`section.option`: value}, with absolute paths."""
    files = [root / ".dvc" / name for name in ("config", "config.local")]
    return _read_settings(root, tuple(path.stat().st_mtime_ns for path in files if path.exists()))


@lru_cache
def _read_settings(root: Path, _version: tuple[int, ...]) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in run_dvc(root, "config", "--list").splitlines() if "=" in line)


def require_remote(root: Path, remote: str) -> Mapping[str, str]:
    """Read DVC's settings of a project that must have a remote.

    Raises:
        ParamsError: if it has not.
    """
    settings = read_settings(root)
    if f"remote.{remote}.url" not in settings:
        known = [key.split(".")[1] for key in settings if key.startswith("remote.") and key.endswith(".url")]
        raise ParamsError(f"--remote: {unknown('DVC remote', remote, known)}; `dvc remote add` makes one")
    return settings


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
