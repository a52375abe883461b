"""What names points is moved apart where they all but coincide, so that each can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from mhrctl.config.colours import INK
from mhrctl.report.figures.style import NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.05
"""Between two lines of text, as a part of a panel's height."""
NEAR = 0.06
"""Points nearer to each other than this part of a panel's width have their names in one column."""
AHEAD = 9
"""Points of type from a point to a name before it."""
CHARACTER = 5.2
"""Points of type that a character of a name takes at most."""
POINTS = 72
"""Of type, to an inch."""
STEPS = 5
"""A wider axis has less room to the inch: so often it is looked at again."""
LIFT = 0.03
"""Of a name before a point that a line comes to, away from the line, as a part of a panel's height."""


@dataclass(frozen=True)
class Named:
    """A point has a name.

    Attributes:
        name: of the point.
        x: of the point, on a logarithmic axis.
        y: of the point.
        height: of the name; None where it may be anywhere near.
    """

    name: str
    x: float
    y: float
    height: float | None = None


def spread(wanted: Sequence[float], gap: float = GAP) -> list[float]:
    """Move numbers from 0 to 1 apart, no further than is needed.

    Args:
        wanted: numbers, in any order.
        gap: which any two of the result have between them at least.

    Returns:
        A number for each, from half a gap on, in the order of `wanted`; equal ones are apart in that order.
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    blocks: list[list[float]] = []
    for place in order:
        blocks.append([wanted[place]])
        while len(blocks) > 1 and _stacked(blocks[-2], gap)[-1] + gap > _stacked(blocks[-1], gap)[0]:
            last = blocks.pop()
            blocks[-1] += last
    moved = [y for block in blocks for y in _stacked(block, gap)]
    return [y for _, y in sorted(zip(order, moved, strict=True))]


def _stacked(block: Sequence[float], gap: float) -> list[float]:
    """Numbers a gap apart about the mean of these, within 0 and 1 if there is room."""
    height = gap * (len(block) - 1)
    start = max(gap / 2, min(sum(block) / len(block) - height / 2, 1 - gap / 2 - height))
    return [start + gap * place for place in range(len(block))]


def heights(axes: Axes, ys: Sequence[float]) -> list[float]:
    """Return heights on axes, whose limits must be final, that are far enough apart for a line of text each."""
    low, high = axes.get_ylim()
    return [low + part * (high - low) for part in spread([(y - low) / (high - low) for y in ys])]


def is_moved(axes: Axes, y: float, height: float) -> bool:
    """Return whether a height is visibly another than that of a point."""
    low, high = axes.get_ylim()
    return abs(height - y) > GAP / 4 * (high - low)


def make_room(axes: Axes, points: Sequence[Named]) -> None:
    """Move the left end of a logarithmic axis until the names before the points are within it."""
    width = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).width * POINTS
    for _ in range(STEPS):
        low, high = axes.get_xlim()
        left = min(width * log(of.x / low) / log(high / low) - AHEAD - CHARACTER * len(of.name) for of in points)
        if left >= 0:
            return
        axes.set_xlim(low / (high / low) ** (-left / width))


def name_before(axes: Axes, points: Sequence[Named]) -> None:
    """Write names before points of a line, from left to right; a thin line goes to a point whose name had to be moved.

    Args:
        axes: whose limits are final, and whose x axis is logarithmic.
        points: in the order of the line.
    """
    for column in _columns(axes, points):
        free = heights(axes, [of.y for of in column])
        if len(column) == 1:
            free = [_off_the_line(axes, points, column[0])]
        x = min(of.x for of in column)
        for of, of_free in zip(column, free, strict=True):
            height = of_free if of.height is None else of.height
            _write(axes, of, (x, height), leads=len(column) > 1 and is_moved(axes, of.y, height))


def _off_the_line(axes: Axes, points: Sequence[Named], of: Named) -> float:
    """A height for the name of a point: above a line that rises to it, and below one that falls to it."""
    low, high = axes.get_ylim()
    before = points[: points.index(of)]
    return of.y + (LIFT if not before or before[-1].y <= of.y else -LIFT) * (high - low)


def _columns(axes: Axes, points: Sequence[Named]) -> list[list[Named]]:
    """Points that are near to each other, by x."""
    low, high = axes.get_xlim()
    columns: list[list[Named]] = []
    for of in sorted(points, key=lambda of: of.x):
        if columns and log(of.x / columns[-1][-1].x) < NEAR * log(high / low):
            columns[-1].append(of)
        else:
            columns.append([of])
    return columns


def _write(axes: Axes, of: Named, place: tuple[float, float], *, leads: bool) -> None:
    from matplotlib.transforms import offset_copy

    axes.annotate(
        of.name,
        (of.x, of.y),
        xytext=place,
        textcoords=offset_copy(axes.transData, axes.get_figure(root=True), x=-AHEAD, units="points"),
        ha="right",
        va="center",
        arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.5, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        if leads
        else None,
        **NAME,
    )
