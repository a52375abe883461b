"""Lines are read of files, whole, and of pipes, as they come."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

from mhrctl.errors import DataError
from mhrctl.suites.reading import read_text

Numbered = tuple[Path, int, str]
"""The file of a line, its number from 1, and the line."""
READ_BYTES = 2**16


def is_pipe(path: Path) -> bool:
    """Return whether a path is read once and as it comes: a named pipe, or what a shell makes of `<(...)`."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def of_file(path: Path) -> list[Numbered]:
    """Return the lines of a file that are not blank.

    Raises:
        DataError: if there is no such file, or it is no UTF-8 text.
    """
    lines = enumerate(read_text(path).split("\n"), 1)  # splitlines would cut at U+2028, which JSON allows
    return [(path, number, line) for number, line in lines if line.strip()]


def of_pipe(descriptor: int, path: Path, most: int) -> Iterator[list[Numbered]]:
    """Yield the lines that are there, at most so many at a time; it waits for a line only where there is none.

    Args:
        descriptor: of the open pipe.
        path: names it in errors.
        most: lines at a time.

    Raises:
        DataError: if a line is no UTF-8 text; the lines before it were yielded.
    """
    lines: list[bytes] = []
    number, rest, is_open = 0, b"", True
    while is_open or lines:
        while is_open and len(lines) < most and (not lines or select.select([descriptor], [], [], 0)[0]):
            read = os.read(descriptor, READ_BYTES)
            is_open = bool(read)
            *whole, rest = (rest + read).split(b"\n")
            if not is_open and rest:
                whole, rest = [*whole, rest], b""
            lines += whole
        batch: list[Numbered] = []
        for line in lines[:most]:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
            except UnicodeDecodeError as error:
                if batch:
                    yield batch
                raise DataError(f"{path}:{number}: not UTF-8 text (byte {error.start}); convert it") from None
            if text.strip():
                batch.append((path, number, text))
        lines = lines[most:]
        if batch:
            yield batch
