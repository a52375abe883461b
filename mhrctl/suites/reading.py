"""Faulty input is reported in one line that says where: JSON by file and line, the hub by name."""

from __future__ import annotations

import json
import reprlib
import sys
import textwrap
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mhrctl.errors import DataError, listed, nearest, unknown
from mhrctl.hub import fetching
from mhrctl.suites.files import require_file

READABLE = 64 * 2**20
"""Bytes of the user's own tasks up to which `mhrctl check` reads them in full."""


class Record(BaseModel):
    """A record is a closed, strictly typed JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse(text: str, path: Path, line: int = 1, *, once: Collection[str] | None = None, surrogates: bool = False) -> Any:  # noqa: ANN401 - JSON is any tree
    """Parse JSON that begins at a line of a file.

    Args:
        text: the JSON.
        path: of the file, which errors name.
        line: that the text begins at.
        once: keys that may not stand twice in an object; None is any key.
        surrogates: let texts pass that are no Unicode, half of a pair of surrogates; the caller looks for them.

    Raises:
        DataError: with the file and the line of the fault.
    """
    try:
        read = json.loads if text.startswith("\ufeff") else _decoder(None if once is None else frozenset(once)).decode
        content = read(text)  # `loads` says what a mark before a text is
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{line + error.lineno - 1}: not valid JSON: {error.msg} (column {error.colno})") from None
    except _FaultError as error:
        raise DataError(f"{path}:{line}: {error}") from None
    except RecursionError:
        raise DataError(f"{path}:{line}: JSON that is nested too deeply to be read; make it flatter") from None
    except ValueError:  # the one that is left: of whole numbers with more digits than Python reads
        longest = f"{sys.get_int_max_str_digits():,}"
        raise DataError(f"{path}:{line}: a number of more than {longest} digits; write it as text, in quotes") from None
    if not surrogates and "\\u" in text and (odd := _no_unicode(content)) is not None:
        raise DataError(
            f"{path}:{line}: text {reprlib.repr(odd)} holds half of a surrogate pair, which is no character; fix it"
        )
    return content


class _FaultError(Exception):
    """Something is no JSON for us that Python's own reader would let pass."""


@cache
def _decoder(once: frozenset[str] | None) -> json.JSONDecoder:
    """A reader of JSON that rejects keys which stand twice, as `parse` has it, and constants that are no numbers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            for key, count in counts.items():
                if count > 1 and (once is None or key in once):
                    raise _FaultError(f"key {reprlib.repr(key)} is there twice in one object; leave one out")
        return content

    def constant(name: str) -> None:
        raise _FaultError(f"not valid JSON: {name} is no number of JSON; leave it out, or write it as text")

    return json.JSONDecoder(object_pairs_hook=unique, parse_constant=constant)


def is_unicode(text: str) -> bool:
    """Return whether a text can be written, which half of a surrogate pair cannot, though JSON lets it pass."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_unicode(content: Any) -> str | None:  # noqa: ANN401
    """The first text or key of a tree that is no Unicode."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, str) and not is_unicode(value):
            return value
        if isinstance(value, list | dict):
            left += [*value, *value.values()] if isinstance(value, dict) else value
    return None


def read_text(path: Path) -> str:
    """Read a file of the user's as UTF-8; the mark that some editors put before it is left out.

    Raises:
        DataError: if there is no such file, it cannot be read, or it is no UTF-8 text.
    """
    require_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; see its permissions") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With the mark, positions count from behind it.
        start = error.start + (len(BOM_UTF8) if content.startswith(BOM_UTF8) else 0)
        line = content.count(b"\n", 0, start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {start}); convert it") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def describe(error: ValidationError, model: type[BaseModel], aliases: Mapping[str, str] | None = None) -> str:
    """Return the first fault that pydantic found, in one line; a key that is unknown may be why another is missing.

    Args:
        error: of a validation.
        model: that was validated.
        aliases: {what others call a key, in small letters: the key}.
    """
    errors = error.errors()
    first = errors[0]
    key = ".".join(str(part) for part in first["loc"])
    odd = [str(each["loc"][-1]) for each in errors if each["type"] == "extra_forbidden"]
    if odd and first["type"] in ("missing", "extra_forbidden"):
        return _unknown_keys(odd, model.model_fields, aliases or {})
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    text = "should be a JSON object" if first["type"] == "model_type" else first["msg"]
    value = f", not {reprlib.repr(first['input'])}" if first["type"].endswith(("_type", "literal_error")) else ""
    return (f"{key}: " if key else "") + text + value


def _unknown_keys(odd: Sequence[str], known: Collection[str], aliases: Mapping[str, str]) -> str:
    """Say which keys are unknown, and which were meant if that can be told of any."""
    meant = list(dict.fromkeys(filter(None, (aliases.get(key.lower()) or nearest(key, known) for key in odd))))
    if len(odd) == 1 and odd[0].lower() not in aliases:
        return unknown("key", odd[0], known)
    said = f"unknown key{'s' if len(odd) > 1 else ''} {listed([repr(key) for key in odd])}"
    return f"{said}; did you mean {listed([repr(key) for key in meant])}?" if meant else f"{said} (known: {listed([*known])})"


@dataclass
class OddRecords:
    """These are records that cannot be read, counted by kind with the place of the first.

    A public data set has some, and one of a million must not stop the rest. What can be done about the first says how it looks.

    Attributes:
        strict: reject the first instead.
        firsts: {kind: place and fault of the first}.
        counts: {kind: how many}.
    """

    strict: bool = False
    firsts: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, fault: str) -> None:
        """Count one.

        Args:
            kind: what it is of, in words.
            fault: where it stands, and what is wrong with it.

        Raises:
            DataError: of the fault, if it is to be rejected.
        """
        if self.strict:
            raise DataError(fault)
        self.firsts.setdefault(kind, fault)
        self.counts[kind] += 1

    def require_few(self, kind: str, every: int) -> None:
        """Check that no more than half of the records of a kind are odd: else they are not what they should be.

        Raises:
            DataError: of the first.
        """
        if too_many_odd(every, every - self.counts[kind], "records"):
            raise DataError(self.firsts[kind])

    @property
    def notes(self) -> dict[str, int]:
        """{what was left out, with the first: how many}, as a suite's notes are."""
        return {f"{kind} that cannot be read, left out, first {self.firsts[kind]}": n for kind, n in self.counts.items()}


def too_many_odd(every: int, readable: int, what: str) -> str | None:
    """Say why a task is not used of whose records more than half cannot be read; None if it can be."""
    odd = every - readable
    return f"{odd:,} of its {every:,} {what} cannot be read" if 2 * odd > every else None


def require_folder(path: Path, setting: str) -> None:
    """Check that a folder which params.yaml names is there.

    Raises:
        DataError: if it is not; names the setting.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; set {setting}")


@contextmanager
def hub_errors(where: str, how: str, *, opens: str | None = None) -> Iterator[None]:
    """Turn whatever a data set on the hub, or the way to it, fails with into one line.

    Args:
        where: what is being read.
        how: to mend it.
        opens: the data set, where it is opened and may have to be fetched.

    Raises:
        DataError: instead of whatever was raised.
    """
    what = f"{where}: cannot be read from the hub"
    with _errors(what, how), fetching(opens, what=what, way_out=how) if opens else nullcontext():
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
