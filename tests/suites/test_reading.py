"""Complaints of a user's files: one line that says where."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mhrctl.errors import DataError
from mhrctl.suites.reading import (
    OddRecords,
    Record,
    describe,
    file_errors,
    hub_errors,
    is_unicode,
    one_line,
    parse,
    read_text,
    require_folder,
    too_many_odd,
)


class Line(Record):
    """A line of a file."""

    name: str
    size: int = 0


def test_json_is_parsed_or_complained_of_by_line_and_column(tmp_path: Path) -> None:
    assert parse('{"a": [1]}', tmp_path) == {"a": [1]}
    with pytest.raises(DataError, match=r"^file.json:8: not valid JSON: .* \(column 2\)$"):
        parse("[1,\n x]", Path("file.json"), 7)


DEEP = 200_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": "\\ud83d"}', r"f.json:3: text '\\ud83d' holds half of a surrogate pair, which is no character; fix it"),
        ('[["\\uDE00 x"]]', "holds half of a surrogate pair"),
        ('{"\\ud83d": 1}', "holds half of a surrogate pair"),
        ("9" * 5000, "f.json:3: a number of more than 4,300 digits; write it as text, in quotes"),
        ("[" * DEEP + "]" * DEEP, "f.json:3: JSON that is nested too deeply to be read; make it flatter"),
        ('{"a":' * DEEP + "1" + "}" * DEEP, "nested too deeply"),
        ("NaN", "f.json:3: not valid JSON: NaN is no number of JSON; leave it out, or write it as text"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1, "b": {"a": 2}, "a": 1}', "f.json:3: key 'a' is there twice in one object; leave one out"),
        ("", "f.json:3: not valid JSON: "),
        ('"a\0b"', "f.json:3: not valid JSON: Invalid control character"),
        ("\ufeff{}", "f.json:3: not valid JSON: Unexpected UTF-8 BOM"),
        ("{'a': 1}", "f.json:3: not valid JSON: "),
    ],
    ids=lambda value: value[:20],
)
def test_json_that_python_reads_otherwise_or_not_at_all(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        parse(text, Path("f.json"), 3)
    assert "\n" not in str(error.value)


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert parse('"\\ud83d\\ude00"', Path("f")) == "\U0001f600"
    assert parse('"\\ud83d"', Path("f"), surrogates=True) == "\ud83d"
    assert [is_unicode(text) for text in ("\U0001f600", "a\ud83d", "\0")] == [True, False, True]


def test_keys_that_may_stand_twice() -> None:
    assert parse('{"note": 1, "note": 2, "a": 3}', Path("f"), once=["a"]) == {"note": 2, "a": 3}
    with pytest.raises(DataError, match="key 'a' is there twice in one object; leave one out"):
        parse('{"a": 1, "a": 2}', Path("f"), once=["a"])


@given(JSON)
def test_whatever_json_says_is_read(content: object) -> None:
    assert parse(json.dumps(content), Path("f")) == content
    assert parse(json.dumps(content, ensure_ascii=False), Path("f")) == content


@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,0123456789eE+-.\\\nudn\ufeff Nafity', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_rejected_with_the_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        path.write_bytes(content)
        said = f"{path}: read"
        try:
            parse(read_text(path), path)
        except DataError as error:
            said = str(error)
        assert said.startswith(f"{path}:")
        assert "\n" not in said


def test_a_mark_before_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path) == "a\nb\nc\n"
    path.write_bytes("two\nlines".encode("utf-16"))
    with pytest.raises(DataError, match=r"a.txt:1: not UTF-8 text \(byte 0\); convert it"):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbfone\ntwo \xe9")
    with pytest.raises(DataError, match=r"a.txt:2: not UTF-8 text \(byte 11\); convert it"):
        read_text(path)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "is a pipe"), (".", "is a folder"), ("none", "is not to be read")):
        with pytest.raises(DataError, match=said):
            read_text(tmp_path / name)


def test_odd_records_are_counted_by_kind_with_the_first_or_rejected() -> None:
    odd = OddRecords()
    for number in range(3):
        odd.add("rows", f"a.csv: row {number}: bad")
    assert odd.notes == {"rows that cannot be read, left out, first a.csv: row 0: bad": 3}
    odd.require_few("rows", 6)
    odd.require_few("others", 0)
    with pytest.raises(DataError, match=r"^a.csv: row 0: bad$"):
        odd.require_few("rows", 5)
    with pytest.raises(DataError, match=r"^here: bad$"):
        OddRecords(strict=True).add("rows", "here: bad")
    assert too_many_odd(4, 2, "rows") is None
    assert too_many_odd(1500, 200, "rows") == "1,300 of its 1,500 rows cannot be read"


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
        ({"nam": "a"}, "unknown key 'nam'; did you mean 'name'? (known: name, size)"),
        ({"Title": "a"}, "unknown key 'Title'; did you mean 'name'?"),
        ({"title": "a", "siz": 1}, "unknown keys 'title', 'siz'; did you mean 'name', 'size'?"),
        ({"xyz": "a", "abc": 1}, "unknown keys 'xyz', 'abc' (known: name, size)"),
        ({"name": 3}, "name: Input should be a valid string, not 3"),
        ([1], "should be a JSON object, not [1]"),
    ],
)
def test_the_first_fault_in_one_line(content: object, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Line.model_validate(content)
    assert describe(error.value, Line, {"title": "name"}) == said


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
