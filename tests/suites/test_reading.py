"""Complaints of a user's files: one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mhrctl.errors import DataError
from mhrctl.suites.reading import Record, describe, file_errors, hub_errors, one_line, parse, read_text, require_folder


class Line(Record):
    """A line of a file."""

    name: str
    size: int = 0


def test_json_is_parsed_or_complained_of_by_line_and_column(tmp_path: Path) -> None:
    assert parse('{"a": [1]}', tmp_path) == {"a": [1]}
    with pytest.raises(DataError, match=r"^file.json:8: not valid JSON: .* \(column 2\)$"):
        parse("[1,\n x]", Path("file.json"), 7)


def test_text_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("größe\u2028".encode())
    assert read_text(path) == "größe\u2028"
    path.write_bytes(b"gr\xf6sse")
    with pytest.raises(DataError, match=r"a.txt:1: not UTF-8 text \(byte 2\); convert it"):
        read_text(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "name is missing"),
        ({"name": "a", "siz": 1}, "unknown key 'siz'; did you mean 'size'? (known: name, size)"),
        ({"name": 3}, "name: Input should be a valid string, not 3"),
        ([1], "should be a JSON object, not [1]"),
    ],
)
def test_the_first_fault_in_one_line(content: object, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Line.model_validate(content)
    assert describe(error.value, Line) == said


def test_whatever_a_library_raises_becomes_one_line() -> None:
    with (
        pytest.raises(DataError, match=r"^a/b: cannot be read from the hub: gone for good; check the network$"),
        hub_errors("a/b", "check the network"),
    ):
        raise ConnectionError("gone\n  for good")
    with pytest.raises(DataError, match=r"^a.csv: cannot be read: KeyError; look at it$"), file_errors("a.csv", "look at it"):
        raise KeyError
    with pytest.raises(DataError, match=r"^as it was$"), hub_errors("a/b", "check the network"):
        raise DataError("as it was")


def test_long_errors_are_cut() -> None:
    assert len(one_line(ValueError("word " * 200))) <= 300
    assert one_line(ValueError()) == "ValueError"


def test_a_folder_that_is_named_must_be_there(tmp_path: Path) -> None:
    require_folder(tmp_path, "prepare.path")
    with pytest.raises(DataError, match=r"x: no such folder; set prepare.path"):
        require_folder(tmp_path / "x", "prepare.path")
