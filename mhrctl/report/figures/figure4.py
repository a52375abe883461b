"""Figure 4 shows what the size of a routing is worth where nothing else is trained: heads, skills, granularity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.colours import INK
from mhrctl.report.figures.marks import OF_PAPER, handle, mark_ours, mark_paper, ours_are
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.figures.sizes import (
    COARSER,
    GREY_LINE,
    NOTEBOOK,
    PARAMETERS,
    TREND,
    Series,
    coarser,
    draw_line,
    for_new_task,
    granularity_of,
    size_panels,
)
from mhrctl.report.figures.style import LOOKS, ROOM, Look, annotate, scale_parameters, shades
from mhrctl.report.printed import printed, printed_blocks
from mhrctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 4: adaptation of the routing alone"
METHODS = ("poly_z", "mhr_z")
MARKERS = "^sDovPX*<>"
"""Of granularities."""


def figure4(results: Results) -> Plan:
    """Plan the scores of poly_z and mhr_z by the numbers of their routing; and the paper's, as far as they are known."""
    return Plan(TITLE, [size_panels(results, METHODS), [_granularity(results), _printed()]])


def _granularity(results: Results) -> Panel:
    """A line for every head count."""
    lines = coarser(results, *METHODS)
    is_missing = not any(len(series.groups) > 1 for series in lines)
    names = list(dict.fromkeys(granularity_of(group) for series in lines for group in reversed(series.groups)))
    markers = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(names)}
    drawn = []
    for method in METHODS:
        alike = [series for series in lines if series.groups[0].method == method]
        drawn += list(zip(alike, shades(LOOKS[method][0], len(alike)), strict=True))
    groups = [group for series in lines for group in series.groups]
    shared = [handle(f"one routing a {name}", INK, marker) for name, marker in markers.items()]
    dotted = any(len(series.groups) >= TREND for series in lines)
    methods = [handle(method, LOOKS[method][0], "s") for method in METHODS if any(of.method == method for of in groups)]
    return Panel(
        "what shares a routing, by heads",
        len(groups),
        partial(_draw_granularity, drawn=drawn, markers=markers, metric=results.metric_name),
        [*methods, *shared, *([handle("coarser routing", GREY_LINE, line=COARSER)] if dotted else [])],
        ours_are(results, groups),
        ["No cells of coarser routing yet: add a variant with pretrain.granularity to mhr_z."] if is_missing else [],
    )


def _draw_granularity(axes: Axes, drawn: Sequence[tuple[Series, str]], markers: dict[str, str], metric: str) -> None:
    """A line with a marker for each granularity, and the number of heads at its end."""
    for series, shade in drawn:
        draw_line(axes, series, COARSER, shade)
        for group in series.groups:
            look: Look = (shade, markers[granularity_of(group)])
            mark_ours(axes, group, x=for_new_task(group), look=look)
        last = series.groups[-1]
        if score := last.score("adapted"):
            annotate(axes, f"h{last.heads}", for_new_task(last), score.mean, "above")
    axes.margins(y=ROOM)
    axes.set_ylabel(metric)
    scale_parameters(axes, PARAMETERS)


def _printed() -> Panel:
    """The paper's two methods, and the sweep of the authors' notebook."""
    block = printed_blocks()[0]
    sweep = handle("mhr_z, coarser routing", LOOKS["mhr_z"][0], ".", COARSER)
    return Panel(f"the paper: {block.suite}, {block.backbone}", len(METHODS), _draw_printed, [sweep], [OF_PAPER, NOTEBOOK])


def _draw_printed(axes: Axes) -> None:
    sweep = printed()["notebook_mhr_z"]
    axes.plot(*zip(*sweep["points"], strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1)
    block = printed_blocks()[0]
    for method in METHODS:
        row = block.rows[method]
        mark_paper(axes, row, x=row.adapted_parameters)
        annotate(axes, row.label, row.adapted_parameters, row.score.mean, "above")
    axes.set_ylabel(block.metric)
    scale_parameters(axes, PARAMETERS)
