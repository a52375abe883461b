"""Hashes of files and folders are how a stage knows its inputs again."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names."""
    total = hashlib.sha256()
    for file in files_in(path):
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def files_in(path: Path) -> list[Path]:
    """Return a file, or a folder's files but for DVC's .gitignore, sorted."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in inside if file.is_file() and file.name != ".gitignore"]
