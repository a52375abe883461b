"""What each release measured: its table is kept when the next measurements take the place of its results."""

from __future__ import annotations

import re
from pathlib import Path

TITLE = """\
# Measured, release by release

The newest release comes first. Ratios can be compared across machines; seconds cannot.
"""
HEADING = re.compile(r"^## (\S+)", re.MULTILINE)


def keep(history: Path, version: str, table: str) -> None:
    """Put the table of a release at the beginning of the history.

    Args:
        history: the file, made if there is none.
        version: of the release.
        table: as `results.markdown` writes it.

    Raises:
        ValueError: if that release has a table already.
    """
    text = history.read_text(encoding="utf-8") if history.exists() else TITLE
    if version in releases(text):
        raise ValueError(f"{history.name} has a table of {version} already")
    first = HEADING.search(text)
    place = first.start() if first else len(text)
    before = text[:place].rstrip("\n")
    history.write_text(f"{before}\n\n## {version}\n\n{table.strip()}\n\n{text[place:]}".rstrip("\n") + "\n", encoding="utf-8")


def releases(text: str) -> list[str]:
    """Return the releases of a history, the newest first."""
    return HEADING.findall(text)
