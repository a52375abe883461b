"""What a run left up to date is known by its files: if none has changed since, the next run need not ask DVC of each stage.

A file's size, inode and times of change stand for its content, as they do for DVC. The times include that of the inode, which
no program sets, so that an edit shows even if it restores the file's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mhrctl.artifacts.writing import write_json

NOTE = "up_to_date"
"""Begins the names of notes, one for each set of targets, in the folder of the project's jobs."""
FORMAT = "1"
"""What notes hold, and how; others are no notes."""
SETTINGS = (".dvc/config", ".dvc/config.local", ".dvcignore")


def fingerprint(paths: Iterable[str | Path]) -> str:
    """Return what tells whether files and folders have changed, been added or removed."""
    digest = hashlib.sha256()
    for path in paths:
        _add(digest, os.fspath(path))
    return digest.hexdigest()


def read_up_to_date(folder: Path, targets: Sequence[str]) -> list[str] | None:
    """Read which stages targets need, if all of them are as a run has left them.

    Args:
        folder: that of the project's jobs, none of which there may be whose result is not recorded.
        targets: as `write_up_to_date` had them, from this working directory.

    Returns:
        The stages in their order; None if that cannot be told without DVC.
    """
    if any(True for _ in folder.glob("*.json")):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_note(folder, targets).read_bytes())
        if note["made"] == _made() and fingerprint(note["paths"]) == note["fingerprint"]:
            return [str(name) for name in note["stages"]]
    return None


def write_up_to_date(folder: Path, targets: Sequence[str], *, stages: Sequence[str], paths: Sequence[str], seen: str) -> None:
    """Note that stages are up to date, with all the files that decide on it.

    Args:
        folder: that of the project's jobs.
        targets: which need these stages.
        stages: their names, in their order.
        paths: what they read and write, and the files that describe them.
        seen: fingerprint of these, taken before the stages were seen to be up to date.
    """
    note = {"made": _made(), "stages": list(stages), "paths": list(paths), "fingerprint": seen}
    write_json(_note(folder, targets), note)


def describing(dvc_yaml: Path, root: Path) -> list[Path]:
    """Return the files that say what the stages of a dvc.yaml are: itself, the variables that it names, and settings."""
    with suppress(OSError, YAMLError):
        tree = YAML(typ="safe", pure=True).load(dvc_yaml)
        named = [name.partition(":")[0] for name in _variables(tree)]
        files = [dvc_yaml.parent / name for name in dict.fromkeys(["params.yaml", *named])]
        return [dvc_yaml, *files, *(root / name for name in SETTINGS)]
    return [dvc_yaml]


def _variables(tree: Any) -> list[str]:  # noqa: ANN401 - YAML is any tree
    """The files of variables that a dvc.yaml names, for all stages or for one."""
    places = [tree, *tree.get("stages", {}).values()] if isinstance(tree, dict) else []
    return [
        entry for place in places if isinstance(place, dict) for entry in place.get("vars", []) or [] if isinstance(entry, str)
    ]


def _note(folder: Path, targets: Sequence[str]) -> Path:
    """The note of targets; its name is none of a job's record."""
    which = hashlib.sha256(json.dumps([str(Path.cwd()), *targets]).encode()).hexdigest()[:16]
    return folder / f"{NOTE}-{which}.note"


def _made() -> list[str]:
    """By what a note was made."""
    return [FORMAT, version("dvc")]


def _add(digest: Any, path: str) -> None:  # noqa: ANN401 - hashlib names no type
    """Add a file, or all that a folder holds, to a digest."""
    try:
        status = os.stat(path)  # noqa: PTH116 - in a loop of thousands
    except OSError:
        digest.update(f"{path}\0-\n".encode())
        return
    if not os.path.isdir(path):  # noqa: PTH112
        digest.update(f"{path}\0{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
        return
    digest.update(f"{path}/\n".encode())
    for name in sorted(os.listdir(path)):  # noqa: PTH208
        _add(digest, f"{path}/{name}")
