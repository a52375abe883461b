"""Hashes of files and folders are how a stage knows its inputs again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path


def content_hash(path: Path) -> str:
    """Return the sha256 of what a file holds."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names."""
    return digest_of({file.relative_to(path): content_hash(file) for file in files_in(path)})


def digest_of(files: Mapping[Path, str]) -> str:
    """Return the `digest` of what has these files.

    Args:
        files: {path in the folder, or `.` for a file alone: sha256}.
    """
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.as_posix().encode())
        total.update(bytes.fromhex(files[file]))
    return total.hexdigest()


def files_in(path: Path) -> list[Path]:
    """Return a file, or a folder's files but for DVC's .gitignore, sorted. Linked folders are looked into, as stages do."""
    inside = sorted(_below(path, ())) if path.is_dir() else [path]
    return [file for file in inside if file.is_file() and file.name != ".gitignore"]


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """What lies in a folder; a link to a folder on the way to it ends the way."""
    info = folder.stat()
    if (info.st_dev, info.st_ino) in above:
        return
    for path in folder.iterdir():
        yield path
        if path.is_dir():
            yield from _below(path, (*above, (info.st_dev, info.st_ino)))
