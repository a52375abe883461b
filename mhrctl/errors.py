"""These are the errors that a user can mend. The command line prints them in one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from unicodedata import category

SHOWN = 40
"""Known names that an error lists."""
FEW = 8
"""So many known names are listed even beside one that is near."""


class MhrctlError(Exception):
    """An error says what is wrong, where, and what to do about it, in one line."""


class ParamsError(MhrctlError):
    """A key, a type or a range is wrong in the params file or on the command line."""


class DataError(MhrctlError):
    """An input of the user's is missing or malformed: a folder, a file, a line, a task."""


class ArtifactError(MhrctlError):
    """A stage's output is missing, unfinished, or made for another backbone or task list."""


class DivergedError(MhrctlError):
    """A training has come to a loss or a gradient that is not finite."""


class StoppedError(Exception):
    """A training has ended where it was asked to, by a signal, with a checkpoint that it goes on from."""


class TrackingError(MhrctlError):
    """A tracker cannot be opened: it is not installed, not logged in, or has nowhere to write."""


@contextmanager
def in_section(section: str) -> Iterator[None]:
    """Name the setting that an error is about: the library names its argument, a key of this section of params.yaml."""
    try:
        yield
    except MhrctlError as error:
        raise type(error)(f"{section}.{error}") from error


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is no `kind`, which is near it, and which there are, or the first of many; many only if none is near."""
    names = list(known)
    close = nearest(name, names)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"unknown {kind} {name!r}{hint}" + ("" if close and len(names) > FEW else f" (known: {listed(names)})")


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """Return the known name that somebody may have meant, whatever its case; None if none is as near as `likeness`, up to 1."""
    by_lower = {each.lower(): each for each in reversed(list(known))}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[close[0]] if close else None


def printable(text: str, keep: str = "") -> str:
    r"""Return a text that shows itself and does nothing else to whoever reads it.

    White space is a space. Other control characters (those that a terminal obeys), signs that turn the direction of what
    follows, and halves of characters become their escapes, such as `\x1b`.

    Args:
        text: such as a name out of a file.
        keep: characters to leave as they are.
    """
    plain = text
    for char in keep:
        plain = plain.replace(char, "")
    return text if plain.isascii() and plain.isprintable() else "".join(_shown(char, keep) for char in text)


def _shown(char: str, keep: str) -> str:
    if char in keep or not (category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _TURNS):
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode()


_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Signs that embed, override or isolate a direction of writing."""


def known(kind: str, name: str, table: Iterable[str]) -> str:
    """Return a name that is in a table.

    Raises:
        ValueError: naming the known ones, if it is not.
    """
    names = list(table)
    if name not in names:
        raise ValueError(unknown(kind, name, names))
    return name


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """List names in a line, or the first of many and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """Say how many there are of what a noun names, such as `1 task` and `1,200 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
