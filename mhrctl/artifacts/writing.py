"""Files and folders appear whole or not at all, and a record says what a run took.

An output folder is written aside and renamed into place with its `card.json` complete, so a folder with a card is whole. All
that is written is on the disk before it has its name, has a name of its own until then, and takes the place of nothing but
what the card of an output lists.
"""

from __future__ import annotations

import csv
import json
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.ownership import require_listed
from mhrctl.artifacts.placing import about, new_file, partial_of, put_file_in_place, put_in_place, require_file, settle
from mhrctl.artifacts.watching import require_unedited


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Write an output folder: yields a folder aside, which replaces `folder` only when the block ends without an error.

    Meanwhile the output's lock is held. What fails leaves the former output as it was, and nothing beside it.

    Raises:
        ArtifactError: if another process writes it, or it holds what the card of an output does not list.
    """
    with locked(folder), about(folder):
        require_listed(folder)
        aside = partial_of(folder)
        aside.mkdir()
        try:
            yield aside
            _require_card(aside, folder)
            require_unedited()
            settle(aside)
            put_in_place(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _require_card(aside: Path, folder: Path) -> None:
    if not (aside / CARD).exists():
        raise AssertionError(f"{folder} would be written without a card")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Write a file in one step: yields a path beside it, which replaces it only when the block ends without an error.

    Args:
        path: the file; its folder is made. If it is a link, the file takes the link's place.
        durable: whether to wait for the disk, so that not even a loss of power leaves half of it. What is generated from
            another file of the project, and looked at before each use, need not.

    Raises:
        ArtifactError: if a folder or something else that is no file is in the way.
    """
    require_file(path)
    with about(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as aside:
            yield aside
            if durable:
                settle(aside)
            put_file_in_place(aside, path, durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file in one step, as UTF-8 with Unix line ends whatever the locale."""
    require_unedited()
    with replacing(path, durable=durable) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON is any tree
    """Write JSON in one step, with one key a line, so that git shows what changed."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:  # noqa: ANN401
    """Return JSON as our files have it."""
    return json.dumps(value, indent=1, sort_keys=False, default=dict) + "\n"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in one step."""
    require_unedited()
    with replacing(path) as aside:
        write_rows(aside, columns, rows)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV into a file that is put in place by somebody else."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read JSON that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


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
    with suppress(OSError):  # the output is in place, and no result depends on this: a full disk makes no failure of it now
        write_json(path, record | {"seconds": round(time.monotonic() - start, 2)})
