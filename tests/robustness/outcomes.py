"""How a command ended, in the terms that all campaigns count in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

Kind = Literal["right", "refused", "unexpected", "tracebacks", "silent", "lost", "hangs"]
"""The ends of a command.

right: done, with the results that are meant. refused: an `error:` line, exit 2 (1 where the environment is at fault).
unexpected: any other end. tracebacks: a bug. silent: exit 0 with other results, or in spite of a wrong thing, without a word.
lost: a file that was there and is no output of the command is gone or changed. hangs: killed at its time limit.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
GOOD: frozenset[Kind] = frozenset({"right", "refused"})
SHOWN = 12

T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """This is how a command ended."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    hung: bool = False
    seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        """The lines of its standard error that begin with `error: `."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def complaints(self) -> list[str]:
        """The errors but for that of files that are to be synced, which follows each edit of params.yaml."""
        return [line for line in self.errors if "mhrctl grid sync" not in line]

    @property
    def text(self) -> str:
        """All that it said."""
        return self.out + self.err

    def says(self, text: str) -> bool:
        """Whether it names something, whatever the lines are wrapped to."""
        return text in self.text or "".join(text.split()) in "".join(self.text.split())

    def kind(self, codes: Iterable[int] = (2,)) -> Kind:
        """Say how it ended, where exit 0 is right until its results are looked at.

        Args:
            codes: exit codes that a refusal may have.
        """
        if self.hung:
            return "hangs"
        if "Traceback (most recent call last)" in self.text:
            return "tracebacks"
        if self.code == 0:
            return "right"
        lines = [line for line in self.err.splitlines() if line.strip()]
        many = self.argv[0] == "check"  # which goes on after a problem, to name them all
        one_line = bool(self.errors) and lines[-len(self.errors) :] == self.errors and (many or len(self.errors) == 1)
        return "refused" if self.code in codes and one_line else "unexpected"


@dataclass
class Campaign:
    """A campaign counts how its cases ended, and keeps what is to be mended."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def count(self, case: str, kind: Kind, ended: Ended, why: str = "") -> None:
        """Count a case.

        Args:
            case: what was done, so that it can be done again.
            kind: how it ended.
            ended: its command.
            why: what was seen.
        """
        self.counts.update(("tried", kind))
        if kind not in GOOD:
            tail = " | ".join(line.strip() for line in ended.err.strip().splitlines()[-3:])
            self.failures.append(f"{kind}: {case}: mhrctl {' '.join(ended.argv)}: exit {ended.code}: {why or tail}"[:500])

    def require_clean(self) -> None:
        """Fail if any case ended otherwise than it may."""
        bad = {kind: self.counts[kind] for kind in KINDS if kind not in GOOD and self.counts[kind]}
        shown = "\n".join(self.failures[:SHOWN])
        assert not bad, f"{self.name}: {bad} of {self.counts['tried']}\n{shown}"
        assert self.counts["tried"], f"{self.name}: nothing was tried"


def sampled(cases: list[T], form: str, quick: int) -> list[T]:
    """Return all cases for the long form, and as many as `quick` for the quick one, taken from the whole list evenly."""
    if form == "long" or len(cases) <= quick:
        return cases
    return [cases[number * len(cases) // quick] for number in range(quick)]


def table(campaigns: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of counts: a line for each campaign, and one for all."""
    columns = ("tried", *KINDS)
    rows: dict[str, Counter[str]] = {}
    for counts in campaigns:
        for name in (str(counts["name"]), "~ all"):
            rows.setdefault(name, Counter()).update({column: counts.get(column, 0) for column in columns})
    lines = [f"{'campaign':40}" + "".join(f"{name:>11}" for name in columns)]
    return lines + [f"{name:40}" + "".join(f"{rows[name][column]:>11}" for column in columns) for name in sorted(rows)]
