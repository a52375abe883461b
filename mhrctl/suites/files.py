"""Which files of a folder are data is decided here, by one rule for every source.

Hidden names are not data, links are followed, and whatever is passed over is named and counted. What can only be a mistake,
such as a link to nothing with the ending of data, is rejected.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mhrctl.errors import DataError

SYSTEM = ("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini")
"""Names that systems put beside the user's files, none of which begins with a dot."""
NAMED = 3
"""Names that a note lists."""
HIDDEN = "hidden or backup files and folders passed over"
CIRCULAR = "links to folders that they lie in passed over"
DANGLING = "links to nothing passed over"
SPECIAL = "pipes, sockets and devices passed over"
LINKED = "linked folders followed, in which `dvc repro` sees no edits"


@dataclass
class DataFiles:
    """These are the files of a folder that are data, and what else lies there.

    Attributes:
        files: those that are data, sorted; links keep the names by which they were reached.
        remarks: {what else was met: names below the folder}.
    """

    files: list[Path] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def remark(self, what: str, name: str) -> None:
        """Keep the name of what is no data, or is not as one might think."""
        self.remarks.setdefault(what, []).append(printable(name))

    @property
    def notes(self) -> dict[str, int]:
        """{what was met, with the first names: how many}, as a suite's notes are."""
        return {f"{what}: {first(names)}": len(names) for what, names in self.remarks.items()}


def data_files(path: Path, endings: Collection[str], *, deep: bool = True, any_case: bool = False) -> DataFiles:
    """Find the files of a folder that are data.

    Args:
        path: the folder; of a file, it is the only one, whatever its ending.
        endings: of data, such as `.jsonl`.
        deep: look into subfolders too.
        any_case: take endings in capitals too; else they are rejected, since they can hardly mean anything but data.

    Returns:
        The files; none if there is no such folder.

    Raises:
        DataError: naming a pipe, a folder, a link to nothing or a second way to one file where a file of data should be.
    """
    here = DataFiles()
    if path.is_dir():
        _walk(_Search(path, tuple(endings), deep, any_case, here, {}), path, ())
        here.files.sort()
    elif path.exists() or path.is_symlink():
        require_file(path)
        here.files.append(path)
    return here


def require_file(path: Path) -> None:
    """Check that there is a regular file, or a link to one: to open a pipe would wait for ever.

    Raises:
        DataError: saying what is there instead.
    """
    if kind := _not_a_file(path):
        raise DataError(f"{printable(str(path))}: is {kind}, not a file of data; replace or remove it")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, of the system, or an editor's backup."""
    return name.startswith(".") or name in SYSTEM or name.endswith("~") or (name.startswith("#") and name.endswith("#"))


def visible(paths: Sequence[Path]) -> list[Path]:
    """Return paths whose last part is not hidden."""
    return [path for path in paths if not is_hidden(path.name)]


def first(names: Sequence[str], most: int = NAMED) -> str:
    """List the first of many names, and say how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def printable(name: str) -> str:
    """Return a name as it can be printed and written as UTF-8, in one line."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass(frozen=True)
class _Search:
    """What a walk through a folder looks for, and what it has seen.

    Attributes:
        root: the folder.
        endings: of data.
        deep: look into subfolders too.
        any_case: take endings in capitals too.
        result: what was seen so far.
        real: {real path of a file: the way to it}.
    """

    root: Path
    endings: tuple[str, ...]
    deep: bool
    any_case: bool
    result: DataFiles
    real: dict[str, Path]

    def is_data(self, name: str) -> bool:
        """Whether a name has an ending of data, in capitals too."""
        return name.lower().endswith(self.endings)


def _walk(search: _Search, folder: Path, above: tuple[tuple[int, int], ...]) -> None:
    """Sort what lies in a folder; `above` are the folders on the way to it, by which links back are known."""
    try:
        inside = sorted(folder.iterdir())
        info = folder.stat()
    except OSError as error:
        raise DataError(f"{printable(str(folder))}: cannot be read: {error.strerror}; see its permissions") from None
    above = (*above, (info.st_dev, info.st_ino))
    for path in inside:
        name, below = path.name, path.relative_to(search.root).as_posix()
        if is_hidden(name):
            search.result.remark(HIDDEN, below)
        elif path.is_dir() and not search.is_data(name):
            inner = path.stat()
            if (inner.st_dev, inner.st_ino) in above:
                search.result.remark(CIRCULAR, below)
            elif search.deep:
                if path.is_symlink():
                    search.result.remark(LINKED, below)
                _walk(search, path, above)
        elif search.is_data(name):
            _take(search, path)
        else:
            kind = _not_a_file(path)
            others = f"files without the ending {' or '.join(search.endings)} passed over"
            search.result.remark(others if kind is None else DANGLING if path.is_symlink() else SPECIAL, below)


def _take(search: _Search, path: Path) -> None:
    """Take a file with an ending of data, or say why it can be none."""
    require_file(path)
    shown = printable(str(path))
    if not search.any_case and not path.name.endswith(search.endings):
        ending = next(ending for ending in search.endings if path.name.lower().endswith(ending))
        raise DataError(f"{shown}: has the ending {path.name[-len(ending) :]}, where {ending} is read; rename it")
    real = os.path.realpath(path)
    if real in search.real:
        raise DataError(f"{shown}: is the same file as {printable(str(search.real[real]))}; remove one of the links")
    search.real[real] = path
    search.result.files.append(path)


def _not_a_file(path: Path) -> str | None:
    """What a path is if it is no regular file and no link to one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "a link to nothing" if path.is_symlink() else f"not to be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
