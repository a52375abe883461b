"""Differences with their intervals are drawn on one scale, a line beside each row of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mhrctl.report.differences import Compared, Difference

WIDTH, EDGE = 140.0, 6.0
"""Of the drawing, and what is left free at either side, in pixels."""


@dataclass(frozen=True)
class Drawn:
    """This is a difference that is to be drawn.

    Attributes:
        extent: its mean, and the ends of its interval if it has one.
        kind: what can be said of it: `better`, `worse`, `open` or `few`.
        says: the same in words.
    """

    extent: tuple[float, ...]
    kind: str
    says: str


@dataclass(frozen=True)
class Mark:
    """A mark is a difference as it is drawn.

    Attributes:
        low: left end of the interval, in pixels; of a difference without an interval its place.
        high: right end.
        place: of the mean.
        kind: what can be said of it: `better`, `worse`, `open` or `few`.
        says: the same in words.
    """

    low: str
    high: str
    place: str
    kind: str
    says: str


@dataclass(frozen=True)
class Forest:
    """A forest is all marks on one scale.

    Attributes:
        marks: {label: mark}, of what has a difference.
        end: what the scale goes to on both sides of 0.
        zero: place of 0, in pixels.
    """

    marks: dict[str, Mark]
    end: str
    zero: str


def forest(compared: Compared) -> Forest | None:
    """Lay out differences to the baseline; None where there are none."""
    return forest_of({label: _drawn(difference) for label, difference in compared.items() if difference})


def forest_of(drawn: Mapping[str, Drawn]) -> Forest | None:
    """Lay out intervals on one scale; None where there are none, or all are 0."""
    end = max((abs(value) for each in drawn.values() for value in each.extent), default=0.0)
    if not end:
        return None

    def at(value: float) -> str:
        return f"{WIDTH / 2 + value / end * (WIDTH / 2 - EDGE):.1f}"

    marks = {
        label: Mark(at(min(each.extent)), at(max(each.extent)), at(each.extent[0]), each.kind, each.says)
        for label, each in drawn.items()
    }
    return Forest(marks, f"{end:.1f}", at(0))


def _drawn(difference: Difference) -> Drawn:
    interval = difference.interval
    extent = (interval.mean, interval.low, interval.high) if difference.has_interval else (interval.mean,)
    kind = "few" if difference.verdict == "too few" else difference.verdict
    return Drawn(extent, kind, f"{difference.shown_mean}, {difference.ends if difference.has_interval else 'no interval'}")
