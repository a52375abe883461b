"""Figure 2 shows the methods on T0 with two backbones, and their scores against the parameters that they adapt.

Scores are points with their deviations and no bars: bars from zero would hide what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhrctl.config.methods import BACKBONE
from mhrctl.report.figures.sizes import COARSER, NOTEBOOK, PARAMETERS, coarser, draw_line
from mhrctl.report.figures.style import (
    LOOKS,
    Drawing,
    add_legend,
    handle,
    mark,
    method_handles,
    new_figure,
    say_missing,
    scale_parameters,
)
from mhrctl.report.printed import PrintedTable, printed, printed_blocks, printed_table
from mhrctl.report.results import NO_SCORES, Results
from mhrctl.report.tables.beside import Row, beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 2: methods, and parameters of adaptation"
TABLES = ("figure2_t5xl", "figure2_t03b")
ROW = 0.2
"""Inches of a method."""
PRINTED = 9
"""Rows of a panel of the paper's."""
TOP = -0.6
"""Of the axis of rows."""
APART = 0.14
"""How far ours and the paper's are from the middle of a row."""


def figure2(results: Results) -> Drawing:
    """Draw the scores with deviations of ours (filled) and the paper's (hollow).

    Ours on T0 are drawn beside the paper's, in the panel of their backbone, or in T5-XL-LM's if they are of neither; ours of
    another suite have a row of their own.
    """
    on_t0 = results.suite == "t0"
    apart = bool(results.adapted) and not on_t0
    tall = max(PRINTED, len(results.adapted) + 2) * ROW + 1
    low = PRINTED * ROW + 1
    heights = [tall, low] if apart else [tall if on_t0 else low]
    layout = "AAB;CDE" if apart else "CDE"
    figure, axes = new_figure(12, sum(heights) + 1.2, layout, TITLE, height_ratios=heights, width_ratios=[1, 1, 1.2])
    missing = [] if results.cells else [NO_SCORES]
    if apart:
        missing += _draw_apart(axes["A"], axes["B"], results)
    missing += _draw_t0(axes["C"], axes["D"], axes["E"], results if on_t0 else Results({}, ()), missing)
    methods = [group.method for group in results.adapted] + [method for name in TABLES for method in printed_table(name).rows]
    kinds = [handle("ours", marker="o"), handle("the paper's", marker="o", hollow=True)]
    sweep = handle("mhr_z, coarser routing", LOOKS["mhr_z"][0], ".", COARSER)
    add_legend(figure, [*kinds, *method_handles([*methods, "full_ft_then_lora"]), sweep], columns=7)
    return Drawing(TITLE, figure, tuple(missing))


def _draw_t0(left: Axes, middle: Axes, right: Axes, results: Results, notes: Sequence[str]) -> list[str]:
    """The paper's two backbones on T0, and ours if ours are of T0. Returns what is missing."""
    tables = [printed_table(name) for name in TABLES]
    home = next((table for table in tables if table.has_backbone(results.backbone)), tables[0])
    missing = []
    for table, axes in zip(tables, (left, middle), strict=True):
        ours = results.adapted if table is home else []
        rows = beside(results, ours, [table])
        lacking = _lacking(rows, f"T0 on {table.backbone}")
        whose = f"; ours: {results.backbone}" if ours and not table.has_backbone(results.backbone) else ""
        _draw_methods(axes, rows, f"T0, {table.backbone}{whose}", table.metric, lacking)
        missing += lacking
    low = max(axes.get_ylim()[0] for axes in (left, middle))
    for axes in (left, middle):
        axes.set_ylim(low, TOP)
    block = next(block for block in printed_blocks() if (block.suite, block.backbone) == ("T0", home.backbone))
    _draw_parameters(right, results, block, f"T0, {home.backbone}", block.metric, notes)
    return missing


def _draw_apart(methods: Axes, parameters: Axes, results: Results) -> list[str]:
    """Ours of another suite than T0, with the paper's scores of that suite if it has it. Returns what is missing."""
    block = next((block for block in printed_blocks() if block.has_suite(results.suite)), None)
    rows = beside(results, results.adapted, [block] if block else [])
    where = f"{results.suite}, {results.backbone}"
    lacking = _lacking(rows, where)
    bare = next((group.score("zero_shot") for group in results.methods if group.method == BACKBONE), None)
    label = results.metric_name + (f" (bare backbone, zero-shot: {bare})" if bare else "")
    _draw_methods(methods, rows, f"ours: {where}", label, lacking)
    _draw_parameters(parameters, results, block, f"ours: {where}", results.metric_name)
    return lacking


def _lacking(rows: Sequence[Row], where: str) -> list[str]:
    """Which rows of the paper we have no scores of."""
    if not any(row.group for row in rows):
        return [f"No cells of {where} yet."]
    lacking = [row.label for row in rows if not row.group]
    return [f"No cells of {', '.join(lacking)} for {where} yet."] if lacking else []


def _draw_methods(axes: Axes, rows: Sequence[Row], title: str, metric: str, missing: Sequence[str]) -> None:
    """A row for each method: ours above the paper's."""
    for place, row in enumerate(rows):
        score = row.group.score("adapted") if row.group else None
        theirs = next((paper for paper in row.papers if paper), None)
        method = row.label.split()[0]
        if score:
            mark(axes, score.mean, place - (APART if theirs else 0), method, ours=True, x_std=score)
        if theirs:
            mark(axes, theirs.score.mean, place + (APART if score else 0), method, ours=False, x_std=theirs.score)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, TOP)
    axes.set_title(title, loc="left")
    say_missing(axes, metric, missing, 48)


def _draw_parameters(
    axes: Axes, results: Results, block: PrintedTable | None, title: str, metric: str, missing: Sequence[str] = ()
) -> None:
    """A point for each method; what only differs in the granularity of its routing is joined by a line."""
    for group in results.adapted:
        score = group.score("adapted")
        if score and group.first.parameters.adaptation:
            mark(axes, group.first.parameters.adaptation, score.mean, group.method, ours=True, y_std=score)
    for series in coarser(results, "mhr_z"):
        draw_line(axes, series, COARSER, LOOKS["mhr_z"][0])
    for row in block.rows.values() if block else ():
        mark(axes, row.adapted_parameters, row.score.mean, row.method, ours=False, y_std=row.score)
    sweep = printed()["notebook_mhr_z"]
    noted = block is not None and (block.suite, block.backbone) == (sweep["suite"], sweep["backbone"])
    if noted:
        axes.plot(*zip(*sweep["points"], strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1, zorder=2)
    axes.set_ylabel(metric)
    axes.set_title(title, loc="left")
    scale_parameters(axes, PARAMETERS, [*([NOTEBOOK] if noted else []), *missing])
