"""YAML and small text files of the user's are read in bounded time and memory, and each key's line is kept.

Whatever is wrong with such a file is a `ParamsError` of one line. An alias costs nothing to write and everything to copy, so
what aliases stand for is counted before anything is made of it.
"""

from __future__ import annotations

import errno
import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from mhrctl.errors import ParamsError

MAX_BYTES = 2**20
"""A params file of more bytes is no params file."""
MAX_NODES = 100_000
"""Keys and values of a file at most, with whatever aliases stand for."""
MAX_DEPTH = 40
"""Levels of keys within keys at most."""
MAX_DIGITS = 100
"""Digits of a number at most: Python refuses to read 4,300, and nobody means a hundred."""
MAX_SHOWN = 80
"""Characters of a value that an error shows."""

Place = tuple[Any, ...]
"""The keys that lead to a setting, from the top of its file."""

_MAP = "tag:yaml.org,2002:map"
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_PLAIN = {_MAP, "tag:yaml.org,2002:seq", *_NUMBERS, *(f"tag:yaml.org,2002:{tag}" for tag in ("str", "bool", "null"))}
_IN_KEYS = {*_PLAIN, "tag:yaml.org,2002:merge"}


@dataclass(frozen=True)
class Document:
    """A document is a YAML file as it was read.

    Attributes:
        path: the file.
        tree: what it holds.
        lines: {place: its line, counted from 1}.
    """

    path: Path
    tree: Any
    lines: Mapping[Place, int] = field(default_factory=dict)

    def place(self, loc: Sequence[Any]) -> Place:
        """Return those keys of `loc` that the file has, from the top; pydantic's names of types are passed over."""
        known: Place = ()
        for part in loc:
            known = (*known, part) if (*known, part) in self.lines else known
        return known

    def at(self, loc: Sequence[Any] = ()) -> str:
        """Return the file and the line of the deepest key of `loc` that it has, as `params.yaml:12`."""
        return f"{self.path}:{self.lines.get(self.place(loc), 1)}"


class _Problem(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


def read_yaml(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ParamsError: with file and line, if it cannot be read, is no YAML, or holds more than anybody writes.
    """
    text = read_text(path)
    try:
        return Document(path, *_parsed(text))
    except _Problem as problem:
        raise ParamsError(f"{path}:{problem.line}: {problem.what}") from None


def read_value(text: str) -> Any:  # noqa: ANN401 - whatever the text says
    """Read a value of the command line as YAML.

    Raises:
        ParamsError: saying what is wrong, but not where it stands.
    """
    if len(text) > MAX_BYTES:
        raise ParamsError(f"a value of {len(text):,} characters; write it into params.yaml")
    try:
        return _parsed(text)[0]
    except _Problem as problem:
        raise ParamsError(f"{shown(text)} is {problem.what}") from None


def read_text(path: Path, *, most: int = MAX_BYTES) -> str:
    """Read a small text file: UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        ParamsError: in one line, if it is no such file; a pipe or a device is not waited for.
    """
    content = _bytes(path, most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}:{line}: not UTF-8 text (byte {content[error.start]:#04x}); save it as UTF-8") from None


def shown(value: Any) -> str:  # noqa: ANN401 - any setting
    """Return a value as an error shows it: in a line, with nothing that a terminal obeys, and cut if it is long."""
    text = value if isinstance(value, str) else _repr(value)
    text = text[: MAX_SHOWN + 1].encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    quoted = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return f"'{quoted}'" if isinstance(value, str) else quoted


def _repr(value: Any) -> str:  # noqa: ANN401
    """What Python would show, without writing out what is large."""
    if isinstance(value, int) and value.bit_length() > MAX_DIGITS:
        return f"a number of about {round(value.bit_length() * math.log10(2))} digits"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(key)}: {_repr(each)}" for key, each in list(value.items())[:5]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(each) for each in value[:5]) + (", ...]" if len(value) > 5 else "]")
    return shown(value) if isinstance(value, str) else repr(value)


def _bytes(path: Path, most: int) -> bytes:
    try:
        kind = path.stat()
        if stat.S_ISDIR(kind.st_mode):
            raise ParamsError(f"{path}: is a folder, where a file is expected")
        if not stat.S_ISREG(kind.st_mode):
            raise ParamsError(f"{path}: is no ordinary file")
        if kind.st_size > most:
            raise ParamsError(f"{path}: {kind.st_size:,} bytes; at most {most:,} are read")
        return path.read_bytes()
    except OSError as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
            raise ParamsError(f"{path}: is a link to {path.readlink()}, which is not there") from None
        what = "no such file" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
        raise ParamsError(f"{path}: {what}") from None


def _parsed(text: str) -> tuple[Any, dict[Place, int]]:
    """What a text holds, and the lines of its keys."""
    try:
        constructor, _ = YAML(typ="safe", pure=True).get_constructor_parser(text)
        node = constructor.composer.get_single_node()
        if node is None:
            return None, {}
        if _size(node, {}, set()) > MAX_NODES:
            raise _Problem(1, f"more than anybody writes: over {MAX_NODES:,} values, with what its aliases stand for")
        tree = _constructed(constructor, node)  # which puts in place what merge keys name
        return tree, dict(_lines(constructor, node, (), 0))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem, context = str(error.problem or error.context), str(error.context)
        what = " ".join((f"{context}, {problem}" if problem.startswith("but ") else problem).split())
        raise _Problem(mark.line + 1 if mark else 1, f"not valid YAML: {what}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Problem(line, f"not valid YAML: the character {shown(chr(error.character))} is not allowed") from None
    except RecursionError:
        raise _Problem(1, f"not valid YAML: nested more than {MAX_DEPTH} deep") from None
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError):
        # ruamel.yaml's own, of a directive that it does not know or the like.
        raise _Problem(
            1, "not valid YAML: it cannot be read, for a directive (%YAML, %TAG) or a tag that is not known"
        ) from None


def _size(node: Node, known: dict[int, int], within: set[int]) -> int:
    """Count a node with all that it holds, aliases in full; refuse what nobody means."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in within:
        raise _Problem(line, "not valid YAML: it holds itself, by an alias")
    _require_plain(node, line)
    within.add(id(node))
    size = 1
    for each in _children(node):
        size += _size(each, known, within)
    within.discard(id(node))
    known[id(node)] = size
    return size


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise _Problem(key.start_mark.line + 1, "not valid YAML: a key is a word or a number")
            yield from (key, value)
    elif isinstance(node, SequenceNode):
        yield from node.value


def _require_plain(node: Node, line: int) -> None:
    """Refuse tags, which make something else of a value, and numbers that are none."""
    tag = str(node.tag)
    if tag not in _IN_KEYS and not (isinstance(node, ScalarNode) and tag == "tag:yaml.org,2002:timestamp"):
        raise _Problem(line, f"not valid YAML here: the tag {shown(tag)}; write text, numbers, lists and mappings")
    if isinstance(node, ScalarNode) and any(each == "\0" or "\ud800" <= each <= "\udfff" for each in node.value):
        raise _Problem(line, f"not valid YAML here: {shown(node.value)} has a character that no text has")
    if tag in _NUMBERS and len(node.value) > MAX_DIGITS:
        raise _Problem(line, f"a number of {len(node.value):,} digits")


def _constructed(constructor: Any, node: Node) -> Any:  # noqa: ANN401 - ruamel.yaml's
    try:
        tree = constructor.construct_document(node)
    except (ValueError, OverflowError) as error:
        raise _Problem(_culprit(constructor, node) or 1, f"not valid YAML: {' '.join(str(error).split())}") from None
    return tree


def _culprit(constructor: Any, node: Node) -> int:  # noqa: ANN401
    """The line of the first scalar of which nothing can be made."""
    if isinstance(node, ScalarNode):
        try:
            constructor.construct_document(node)
        except (ValueError, OverflowError, MarkedYAMLError):
            return int(node.start_mark.line) + 1
        return 0
    return next((line for line in (_culprit(constructor, each) for each in _children(node)) if line), 0)


def _lines(constructor: Any, node: Node, place: Place, depth: int) -> Iterator[tuple[Place, int]]:  # noqa: ANN401
    """The places below a node, with their lines; a number that is not finite is refused on the way."""
    if depth > MAX_DEPTH:
        raise _Problem(node.start_mark.line + 1, f"nested more than {MAX_DEPTH} deep")
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = (*place, constructor.construct_document(key))
            yield name, key.start_mark.line + 1
            yield from _lines(constructor, value, name, depth + 1)
    elif isinstance(node, SequenceNode):
        for index, each in enumerate(node.value):
            yield (*place, index), each.start_mark.line + 1
            yield from _lines(constructor, each, (*place, index), depth + 1)
    elif node.tag in _NUMBERS and not math.isfinite(constructor.construct_document(node)):
        where = ".".join(map(str, place))
        raise _Problem(node.start_mark.line + 1, f"{where + ': ' if where else ''}{node.value} is not a finite number")
