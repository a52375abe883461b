"""A score is a marker, filled for ours and hollow for the paper's; it varies as far as its bar, or as the dots of few seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mhrctl.config.colours import PAPER
from mhrctl.report.aggregates import MEDIANS, aggregate_of
from mhrctl.report.figures.style import LOOKS, Line, Look, Size
from mhrctl.report.printed import PrintedRow
from mhrctl.report.results import ORDER, Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

ENOUGH = 3
"""Seeds from which on a deviation says anything; of fewer each is a dot."""
LIGHT = "light"
"""The layout whose markers are smaller."""
SIZES: dict[Size, float] = {"big": 7, "small": 5}
"""Of markers, in points; a star is a third larger."""
DOT = 3
"""Of a seed's dot, in points."""
EDGE = 0.5
"""Points of paper around a marker of ours, which tell it from one beneath it."""
OURS, PAPERS = "ours", "the paper's"
OF_PAPER = "Hollow: the paper's, with its standard deviation."
OF_MEANS = "mean over seeds of the mean over tasks"
OF_MEDIANS = "mean over tasks of each task's median over seeds"
ITS_BARS = {OF_MEANS: "standard deviation", OF_MEDIANS: "mean over tasks of the standard deviation"}


def mark_ours(
    axes: Axes,
    group: Group,
    *,
    x: float | None = None,
    y: float | None = None,
    look: Look | None = None,
    size: Size | None = None,
) -> None:
    """Draw the adapted score of a method, if it has one, filled.

    Args:
        axes: to draw on.
        group: the method.
        x: of the point, where its score is on the y axis.
        y: of the point, where its score is on the x axis.
        look: if it is not the method's.
        size: if it is not that of the layout.
    """
    score = group.score("adapted")
    if score is None:
        return
    colour, marker = look or LOOKS[group.method]
    seeds = group.values("adapted")
    bar = score.deviation if len(seeds) >= ENOUGH else None
    place = (x, score.mean) if x is not None else (score.mean, y or 0.0)
    points = SIZES[size or size_of(group.first.layout)] * (4 / 3 if marker == "*" else 1)
    edge: dict[str, Any] = (
        {"markeredgecolor": PAPER, "markeredgewidth": EDGE} if marker != "X" else {}
    )  # whose arms it would eat
    axes.errorbar(
        *place,
        xerr=None if x is not None else bar,
        yerr=bar if x is not None else None,
        fmt=marker,
        color=colour,
        markersize=points + bool(edge),
        elinewidth=1,
        capsize=2,
        alpha=0.9,
        zorder=3,
        **edge,
    )
    if 1 < len(seeds) < ENOUGH:
        dots = ([x] * len(seeds), seeds) if x is not None else (seeds, [y or 0.0] * len(seeds))
        axes.plot(*dots, "o", color=colour, markersize=DOT, markeredgecolor=PAPER, markeredgewidth=EDGE, zorder=2.9)


def mark_paper(axes: Axes, row: PrintedRow, *, x: float | None = None, y: float | None = None) -> None:
    """Draw a score of the paper, hollow: at this x with the score on the y axis, or at this y with it on the x axis."""
    colour, marker = LOOKS[row.method]
    score = row.score
    place = (x, score.mean) if x is not None else (score.mean, y or 0.0)
    axes.errorbar(
        *place,
        xerr=None if x is not None else score.deviation,
        yerr=score.deviation if x is not None else None,
        fmt=marker,
        color=colour,
        markerfacecolor=PAPER,
        markersize=SIZES[size_of(row.layout)] * (4 / 3 if marker == "*" else 1),
        elinewidth=1,
        capsize=2,
        alpha=0.9,
        zorder=2.5,
    )


def size_of(layout: str | None) -> Size:
    """Return the size of the markers of a layout."""
    return "small" if layout == LIGHT else "big"


def handle(
    label: str, colour: str, marker: str = "", line: Line = "none", *, hollow: bool = False, size: Size = "big"
) -> Line2D:
    """Make an entry of a legend."""
    from matplotlib.lines import Line2D

    face = PAPER if hollow else colour
    return Line2D(
        [], [], color=colour, marker=marker, linestyle=line, markerfacecolor=face, markersize=SIZES[size], label=label
    )


def method_handles(methods: Iterable[str], *, hollow: bool = False) -> list[Line2D]:
    """Make the legend's entries of these methods, in the order of the methods table."""
    return [handle(method, *LOOKS[method], hollow=hollow) for method in sorted(set(methods), key=ORDER.index)]


def ours_are(results: Results, groups: Sequence[Group]) -> list[str]:
    """Say what our scores are, and what their bars or dots are of; nothing of no groups.

    Args:
        results: ours.
        groups: those of them that are drawn.
    """
    counts = sorted({len(group.values("adapted")) for group in groups})
    if not counts:
        return []
    score = OF_MEDIANS if aggregate_of(results.suite) is MEDIANS else OF_MEANS
    many = [count for count in counts if count >= ENOUGH]
    parts = [f"Filled: ours, {score}"]
    if many:
        seeds = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
        parts.append(f"bars: {ITS_BARS[score]} over {seeds} seeds")
    if 2 in counts:
        parts.append("small dots: the two seeds, too few for a bar, where the marker does not hide them")
    if 1 in counts:
        parts.append("with neither: a single seed" if counts != [1] else "a single seed")
    return ["; ".join(parts) + "."]
