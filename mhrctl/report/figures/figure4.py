"""Figure 4 shows what the size of a routing is worth where nothing else is trained: heads, skills, granularity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhrctl.report.figures.sizes import (
    COARSER,
    GREY_LINE,
    NOTEBOOK,
    PARAMETERS,
    Series,
    coarser,
    draw_line,
    draw_sizes,
    for_new_task,
    granularity_of,
    size_handles,
)
from mhrctl.report.figures.style import (
    LOOKS,
    ROOM,
    Drawing,
    add_legend,
    annotate,
    empty,
    handle,
    mark,
    method_handles,
    new_figure,
    scale_parameters,
    shades,
)
from mhrctl.report.printed import printed, printed_blocks
from mhrctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 4: adaptation of the routing alone"
METHODS = ("poly_z", "mhr_z")
MARKERS = "^sDovPX*<>"
"""Of granularities."""


def figure4(results: Results) -> Drawing:
    """Draw the scores of poly_z and mhr_z by the numbers of their routing; and the paper's, as far as they are known."""
    figure, axes = new_figure(12, 8.6, "AM;GP", TITLE)
    missing = [*draw_sizes(axes["A"], axes["M"], results, METHODS), *_draw_granularity(axes["G"], results)]
    _draw_printed(axes["P"])
    kinds = [handle("ours", marker="o"), handle("the paper's", marker="o", hollow=True)]
    granularity = handle("coarser routing", GREY_LINE, line=COARSER)
    add_legend(figure, [*kinds, *method_handles(METHODS), *size_handles(results), granularity], columns=8)
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
    names = list(dict.fromkeys(granularity_of(group) for series in lines for group in reversed(series.groups)))
    of_method = {method: [series for series in lines if series.groups[0].method == method] for method in METHODS}
    for method, alike in of_method.items():
        for series, shade in zip(alike, shades(LOOKS[method][0], len(alike)), strict=True):
            _draw_series(axes, series, shade, names)
    if len(names) > 1:
        handles = [handle(name, GREY_LINE, MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)]
        axes.legend(handles=handles, title="shared by", loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, title_fontsize=7)
    axes.margins(y=ROOM)
    axes.set_title("what shares a routing, by heads", loc="left")
    axes.set_ylabel(results.metric_name)
    scale_parameters(axes, PARAMETERS, missing)
    return missing


def _draw_series(axes: Axes, series: Series, shade: str, names: Sequence[str]) -> None:
    """A line with a marker for each granularity, and the number of heads at its end."""
    draw_line(axes, series, COARSER, shade)
    for group in series.groups:
        if score := group.score("adapted"):
            look = (shade, MARKERS[names.index(granularity_of(group)) % len(MARKERS)])
            mark(axes, for_new_task(group), score.mean, look, ours=True, y_std=score)
    last = series.groups[-1]
    if score := last.score("adapted"):
        annotate(axes, f"h{last.heads}", for_new_task(last), score.mean, "above")


def _draw_printed(axes: Axes) -> None:
    """The paper's two methods, and the sweep of the authors' notebook."""
    sweep = printed()["notebook_mhr_z"]
    axes.plot(*zip(*sweep["points"], strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1)
    block = printed_blocks()[0]
    for method in METHODS:
        row = block.rows[method]
        mark(axes, row.adapted_parameters, row.score.mean, LOOKS[method], ours=False, y_std=row.score)
    axes.set_ylabel(block.metric)
    axes.set_title(f"the paper: {block.suite}, {block.backbone}", loc="left")
    scale_parameters(axes, PARAMETERS, [NOTEBOOK])
