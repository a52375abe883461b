"""A file in the scratch folder has no card: its hash is noted beside it, so that it is used again only as it was written."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.hashing import content_hash
from mhrctl.artifacts.writing import write_text


def note(path: Path) -> None:
    """Write the hash of a finished file beside it."""
    write_text(_note_of(path), f"{content_hash(path)}\n")


def is_noted(path: Path) -> bool:
    """Return whether a file is there, and as it was noted: not if it is rotten, or its process was killed before the note."""
    try:
        return path.is_file() and _note_of(path).read_text(encoding="ascii").strip() == content_hash(path)
    except (OSError, ValueError):
        return False


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
