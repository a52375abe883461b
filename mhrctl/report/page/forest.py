"""Differences with their intervals are drawn on one scale, a line beside each row of the results."""

from __future__ import annotations

from dataclasses import dataclass

from mhrctl.report.differences import Compared, Difference

WIDTH, EDGE = 140.0, 6.0
"""Of the drawing, and what is left free at either side, in pixels."""


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
    differences = {label: difference for label, difference in compared.items() if difference}
    end = max((abs(each) for difference in differences.values() for each in _extent(difference)), default=0.0)
    if not differences or not end:
        return None

    def at(value: float) -> str:
        return f"{WIDTH / 2 + value / end * (WIDTH / 2 - EDGE):.1f}"

    marks = {}
    for label, difference in differences.items():
        low, high = min(_extent(difference)), max(_extent(difference))
        kind = "few" if difference.verdict == "too few" else difference.verdict
        says = f"{difference.shown_mean}, {difference.ends if difference.has_interval else 'no interval'}"
        marks[label] = Mark(at(low), at(high), at(difference.interval.mean), kind, says)
    return Forest(marks, f"{end:.1f}", at(0))


def _extent(difference: Difference) -> tuple[float, ...]:
    interval = difference.interval
    return (interval.mean, interval.low, interval.high) if difference.has_interval else (interval.mean,)
