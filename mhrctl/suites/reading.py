"""Faulty input is reported in one line that says where: JSON by file and line, the hub by name."""

from __future__ import annotations

import json
import reprlib
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mhrctl.errors import DataError, unknown

READABLE = 64 * 2**20
"""Bytes of the user's own tasks up to which `mhrctl check` reads them in full."""


class Record(BaseModel):
    """A record is a closed, strictly typed JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse(text: str, path: Path, line: int = 1) -> Any:  # noqa: ANN401 - JSON is any tree
    """Parse JSON that begins at a line of a file.

    Raises:
        DataError: with the file and the line of the fault.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise DataError(f"{where}: not valid JSON: {error.msg} (column {error.colno})") from None


def read_text(path: Path) -> str:
    """Read a file of the user's as UTF-8.

    Raises:
        DataError: if it is no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); convert it") from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first fault that pydantic found, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown("key", key, model.model_fields)
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    text = "should be a JSON object" if first["type"] == "model_type" else first["msg"]
    value = f", not {reprlib.repr(first['input'])}" if first["type"].endswith(("_type", "literal_error")) else ""
    return (f"{key}: " if key else "") + text + value


def require_folder(path: Path, setting: str) -> None:
    """Check that a folder which params.yaml names is there.

    Raises:
        DataError: if it is not; names the setting.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; set {setting}")


@contextmanager
def hub_errors(where: str, how: str) -> Iterator[None]:
    """Turn whatever a data set on the hub, or the way to it, fails with into one line.

    Args:
        where: what is being read.
        how: to mend it.

    Raises:
        DataError: instead of whatever was raised.
    """
    with _errors(f"{where}: cannot be read from the hub", how):
        yield


@contextmanager
def file_errors(where: str, how: str) -> Iterator[None]:
    """Turn whatever a library fails with on files of the user's into one line, as `hub_errors` does for the hub."""
    with _errors(f"{where}: cannot be read", how):
        yield


@contextmanager
def _errors(what: str, how: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # datasets, the file formats, the hub's client and the network each raise their own
        raise DataError(f"{what}: {one_line(error)}; {how}") from error


def one_line(error: Exception) -> str:
    """Return what an error of a library says, in one line of bearable length."""
    return textwrap.shorten(str(error) or type(error).__name__, 300)
