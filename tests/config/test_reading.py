"""YAML and text of the user's: everything comes out as a value, or as one line with the file and the line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhrctl.config.reading import MAX_BYTES, read_text, read_value, read_yaml, shown
from mhrctl.errors import ParamsError
from tests.config.mutations import complaint_of

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
"""Some 300 bytes that stand for 30,000 million values."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: \xff\xfe\n", "params.yaml:2: not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("größe: 1".encode("latin-1"), "params.yaml:1: not UTF-8 text (byte 0xf6); save it as UTF-8"),
        ("a: 1".encode("utf-16"), "params.yaml:1: not UTF-8 text (byte 0xff); save it as UTF-8"),
        (b"a: 1\nb: \0\n", r"params.yaml:2: not valid YAML: the character '\x00' is not allowed"),
        (b'a: 1\nb: "\\0"\n', r"params.yaml:2: not valid YAML here: '\x00' has a character that no text has"),
        (b'a: 1\nb: "\\ud800"\n', r"params.yaml:2: not valid YAML here: '\ud800' has a character that no text has"),
        (b"a: 1\n\tb: 2\n", "params.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        (b"a: 1\na: 2\n", 'params.yaml:2: not valid YAML: found duplicate key "a" with value "2" (original value: "1")'),
        (
            b"a: 1\n---\nb: 2\n",
            "params.yaml:2: not valid YAML: expected a single document in the stream, but found another document",
        ),
        (
            b"a: 1\nb: !!set {}\n",
            "params.yaml:2: not valid YAML here: the tag 'tag:yaml.org,2002:set'; write text, numbers, lists and mappings",
        ),
        (b"a: 1\nb: &b [*b]\n", "params.yaml:2: not valid YAML: it holds itself, by an alias"),
        (b"a: 1\nb: *c\n", "params.yaml:2: not valid YAML: found undefined alias 'c'"),
        (b"a: 1\n? [b]\n: 1\n", "params.yaml:2: not valid YAML: a key is a word or a number"),
        (b"a: 1\nb: 2001-99-99\n", "params.yaml:2: not valid YAML: month must be in 1..12"),
        (b"a: 1\nb: " + b"9" * 5000, "params.yaml:2: a number of 5,000 digits"),
        (b"a: 1\nb: {c: [1, .inf]}\n", "params.yaml:2: b.c.1: .inf is not a finite number"),
        (b"a: 1e400\n", "params.yaml:1: a: 1e400 is not a finite number"),
        (b"a: " + b"[" * 200_000, "params.yaml:1: not valid YAML: nested more than 40 deep"),
        (b"a: " + b"[1, " * 60 + b"]" * 60, "params.yaml:1: nested more than 40 deep"),
        (BOMB.encode(), "params.yaml:1: more than anybody writes: over 100,000 values, with what its aliases stand for"),
        (b"x" * (MAX_BYTES + 1), "params.yaml: 1,048,577 bytes; at most 1,048,576 are read"),
        (
            b"%YAML 9.9\n---\na: 1\n",
            "params.yaml:1: not valid YAML: it cannot be read, for a directive (%YAML, %TAG) or a tag that is not known",
        ),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{tmp_path}/{said}"


def test_what_is_no_file_is_one_line_and_nothing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    made: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "params.yaml: no such file"),
        (path.mkdir, "params.yaml: is a folder, where a file is expected"),
        (lambda: os.mkfifo(path), "params.yaml: is no ordinary file"),
        (lambda: path.symlink_to("nowhere"), "params.yaml: is a link to nowhere, which is not there"),
        (lambda: path.symlink_to(path), f"params.yaml: is a link to {path}, which is not there"),
        (lambda: path.symlink_to("/dev/zero"), "params.yaml: is no ordinary file"),
    ]
    for make, said in made:
        make()
        with pytest.raises(ParamsError) as caught:
            read_yaml(path)
        assert str(caught.value) == f"{tmp_path}/{said}"
        if path.is_dir():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()


def test_keys_have_lines_also_where_aliases_and_merges_put_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &a\n  b: 1\nc:\n  <<: *a\n  d:\n    - {e: 2}\n    - *a\n")
    document = read_yaml(path)
    assert document.tree == {"a": {"b": 1}, "c": {"b": 1, "d": [{"e": 2}, {"b": 1}]}}
    assert [document.at(place) for place in (("a",), ("c",), ("c", "b"), ("c", "d", 0, "e"), ("c", "d", 1, "b"))] == [
        f"{path}:{line}" for line in (1, 3, 2, 6, 2)
    ]
    assert document.at(("c", "d", "list[str]", 1, "x")) == f"{path}:1"  # where what the alias stands for is
    assert document.at(("x",)) == f"{path}:1"


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text in ("", "# only this\n", "\ufeff"):
        path.write_text(text)
        assert read_yaml(path).tree is None
    assert read_text(path) == ""


def test_values_of_the_command_line_are_yaml() -> None:
    assert [read_value(text) for text in ("1e-3", "[1, 2]", "", "{a: b}", "yes")] == [0.001, [1, 2], None, {"a": "b"}, "yes"]
    for text, said in (
        ("[", r"'\[' is not valid YAML"),
        (".nan", r"'.nan' is .nan is not a finite number"),
        ("a\0", r"'a\\x00' is not valid YAML: the character"),
        ("x\udcff", "'x\\\\udcff' is not valid YAML: the character"),
        ("x" * (MAX_BYTES + 1), "a value of 1,048,577 characters"),
    ):
        with pytest.raises(ParamsError, match=said):
            read_value(text)


def test_values_are_shown_short_and_harmless() -> None:
    assert shown("two") == "'two'"
    assert shown("a\x1b[31m\nb") == r"'a\x1b[31m\nb'"
    assert shown("größe") == "'größe'"
    assert shown("x" * 1000) == f"'{'x' * 80}...'"
    assert shown(10**300) == "a number of about 300 digits"
    assert shown([1, "a", {"b": None}]) == "[1, 'a', {'b': None}]"
    assert len(shown([["x" * 1000] * 1000] * 1000)) < 1000


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_a_tree_or_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_bytes(content)
        said = complaint_of(lambda: read_yaml(path))
        assert said is None or said.startswith(str(path))
        assert "\n" not in (said or "")


@given(st.text(alphabet="abc:-?!&*[]{},#|>'\"%@` \n\t0.eE+~<", max_size=60))
def test_any_text_of_yaml_signs_is_a_value_or_one_line(text: str) -> None:
    assert "\n" not in (complaint_of(lambda: read_value(text)) or "")
