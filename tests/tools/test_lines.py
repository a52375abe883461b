"""Lines of files and of pipes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhrctl.errors import DataError
from mhrctl.tools.lines import is_pipe, of_file, of_pipe

NAME = Path("stdin")


def piped(*writes: bytes) -> int:
    """The end of a pipe into which all of this was written, and which was closed then."""
    reading, writing = os.pipe()
    for each in writes:
        os.write(writing, each)
    os.close(writing)
    return reading


def test_lines_of_a_file_have_their_numbers_and_blank_ones_count(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes("\ufeffa\r\n\n  \nb\u2028c".encode())
    assert of_file(file) == [(file, 1, "a"), (file, 4, "b\u2028c")]


def test_lines_of_a_pipe_come_so_many_at_a_time() -> None:
    assert list(of_pipe(piped(b"\xef\xbb\xbfa\r\nb\n\n", b"c\nd"), NAME, 2)) == [
        [(NAME, 1, "a"), (NAME, 2, "b")],
        [(NAME, 4, "c")],
        [(NAME, 5, "d")],
    ]
    assert list(of_pipe(piped(), NAME, 2)) == []


def test_a_line_of_a_pipe_is_there_before_the_next_one_is_written() -> None:
    reading, writing = os.pipe()
    lines = of_pipe(reading, NAME, 9)
    for number, text in enumerate(("one", "two"), 1):
        os.write(writing, f"{text}\n".encode())
        assert next(lines) == [(NAME, number, text)]
    os.write(writing, b"half")
    os.close(writing)
    assert next(lines) == [(NAME, 3, "half")]
    assert next(lines, None) is None


def test_long_lines_are_put_together() -> None:
    reading, writing = os.pipe()
    lines = of_pipe(reading, NAME, 9)
    os.write(writing, b"a" * 1000)
    os.write(writing, b"b" * 1000 + b"\n")
    os.close(writing)
    assert next(lines) == [(NAME, 1, "a" * 1000 + "b" * 1000)]


def test_what_is_no_text_names_its_line_after_those_before_it() -> None:
    lines = of_pipe(piped(b"a\n\xff\nb\n"), NAME, 9)
    assert next(lines) == [(NAME, 1, "a")]
    with pytest.raises(DataError, match=r"^stdin:2: not UTF-8 text \(byte 0\); convert it$"):
        next(lines)


def test_pipes_are_told_from_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    assert is_pipe(tmp_path / "pipe")
    assert not is_pipe(tmp_path / "file")
    assert not is_pipe(tmp_path / "nothing")
