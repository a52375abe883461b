"""Files and folders appear whole or not at all, and a record says what a run took.

An output folder is written aside and renamed into place with its `card.json` complete, so a folder with a card is whole.
"""

from __future__ import annotations

import csv
import json
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.watching import require_unedited


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Write an output folder: yields a folder aside, which replaces `folder` only when the block ends without an error."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    if not (aside / CARD).exists():
        raise AssertionError(f"{folder} would be written without a card")
    require_unedited()
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old)
    else:
        aside.rename(folder)


@contextmanager
def replacing(path: Path, *, mark: str = "partial") -> Iterator[Path]:
    """Write a file in one step: yields a path beside it, which replaces it only when the block ends without an error.

    Args:
        path: the file; its folder is made.
        mark: ends the name of the path beside it; processes that may write the same file at once need one each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{mark}")
    try:
        yield aside
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    require_unedited()
    with replacing(path) as aside:
        aside.write_text(text)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON is any tree
    """Write JSON in one step, with one key a line, so that git shows what changed."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False, default=dict) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in one step."""
    require_unedited()
    with replacing(path) as aside, aside.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read JSON that a stage wrote."""
    return json.loads(path.read_text())


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
