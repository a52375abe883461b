"""What a card lists is ours, and may be replaced; everything else is the user's, and stays as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mhrctl.artifacts.names import CARD
from mhrctl.errors import ArtifactError, ParamsError


def require_listed(folder: Path) -> None:
    """Check that an output can be replaced: that there is nothing, or a folder with no other files than its card lists.

    Raises:
        ArtifactError: if something else is there; names it.
    """
    if folder.is_symlink():
        raise ArtifactError(f"{folder}: is a link, which is not followed on writing; remove it or name another folder")
    if os.path.lexists(folder) and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file, in the way of an output folder; move it away or name another")
    if foreign := next(foreign_files(folder), None):
        raise ArtifactError(
            f"{folder}: holds {foreign.relative_to(folder)}, which its card does not list and an output would replace;"
            " move that away or name another folder"
        )


def require_apart(out: Path, path: Path) -> None:
    """Check that an input is not the output that it is read for, and that neither lies in the other.

    Raises:
        ParamsError: if writing the output would replace or litter the input.
    """
    output, read = (Path(os.path.realpath(each)) for each in (out, path))  # `resolve` fails at a link to itself
    if output == read or output in read.parents or read in output.parents:
        how = "is" if output == read else "lies in" if output in read.parents else "holds"
        raise ParamsError(f"{path}: {how} {out}, which would be written while this is read; name another folder")


def foreign_files(folder: Path) -> Iterator[Path]:
    """Yield the files and links in a folder that its card does not list, in the order of their names."""
    listed = _listed_files(folder)
    names = set() if listed is None else {*listed, CARD}
    for path in sorted(folder.rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).as_posix() not in names:
            yield path


def _listed_files(folder: Path) -> Mapping[str, object] | None:
    """What the card in a folder lists, whether or not it is whole: it says whose files they are, not what is in them."""
    try:
        record = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    files = record.get("files") if isinstance(record, dict) else None
    return files if isinstance(files, dict) else None
