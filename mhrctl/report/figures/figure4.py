"""Figure 4 shows what the size of a routing is worth where nothing else is trained: heads, skills, granularity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mhrctl.report.figures.sizes import (
    COARSER,
    GREY_LINE,
    NOTEBOOK,
    PARAMETERS,
    coarser,
    draw_line,
    draw_points,
    draw_sizes,
    size_handles,
)
from mhrctl.report.figures.style import (
    LOOKS,
    Drawing,
    add_legend,
    empty,
    handle,
    mark,
    method_handles,
    new_figure,
    scale_parameters,
)
from mhrctl.report.printed import printed, printed_blocks
from mhrctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 4: adaptation of the routing alone"
METHODS = ("poly_z", "mhr_z")


def figure4(results: Results) -> Drawing:
    """Draw the scores of poly_z and mhr_z by the numbers of their routing; and the paper's, as far as they are known."""
    figure, axes = new_figure(12, 4.6, "LMR", TITLE)
    missing = [*draw_sizes(axes["L"], results, METHODS), *_draw_granularity(axes["M"], results)]
    _draw_printed(axes["R"])
    kinds = [handle("ours", marker="o"), handle("the paper's", marker="o", hollow=True)]
    granularity = handle("coarser routing", GREY_LINE, line=COARSER)
    add_legend(figure, [*kinds, *method_handles(METHODS), *size_handles(), granularity], columns=7)
    return Drawing(TITLE, figure, tuple(missing))


def _draw_granularity(axes: Axes, results: Results) -> list[str]:
    """A line for every head count. Returns what is missing."""
    lines = coarser(results, *METHODS)
    missing = []
    if not any(len(series.groups) > 1 for series in lines):
        missing.append("No cells of coarser routing yet: add a variant with pretrain.granularity to mhr_z.")
    if not lines:
        empty(axes, missing)
        return missing
    for number, series in enumerate(lines):
        draw_line(axes, series, COARSER)
        draw_points(axes, series, "below" if number % 2 else "above")
    axes.set_title("what shares a routing, by heads", loc="left")
    axes.set_ylabel(results.metric_name)
    scale_parameters(axes, PARAMETERS, missing)
    return missing


def _draw_printed(axes: Axes) -> None:
    """The paper's two methods, and the sweep of the authors' notebook."""
    sweep = printed()["notebook_mhr_z"]
    axes.plot(*zip(*sweep["points"], strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1)
    block = printed_blocks()[0]
    for method in METHODS:
        row = block.rows[method]
        mark(axes, row.adapted_parameters, row.score.mean, method, ours=False, y_std=row.score)
    axes.set_ylabel(block.metric)
    axes.set_title(f"the paper: {block.suite}, {block.backbone}", loc="left")
    scale_parameters(axes, PARAMETERS, [NOTEBOOK])
