"""Figure 2 shows the methods on T0 with two backbones, and their scores against the parameters that they adapt.

Scores are points with their deviations and no bars: bars from zero would hide what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.report.figures.sizes import COARSER, NOTEBOOK, PARAMETERS, coarser, draw_line, for_new_task, scores_are
from mhrctl.report.figures.style import (
    LOOKS,
    Drawing,
    Size,
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
from mhrctl.report.tables.beside import Row, beside, differs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 2: methods, and parameters of adaptation"
TABLES = ("figure2_t5xl", "figure2_t03b")
MIXED = "The paper counts of poly and mhr the mixed LoRA, ours all that is trained."
ROW = 0.2
"""Inches of a method."""
PRINTED = 9
"""Rows of a panel of the paper's."""
APART = 0.14
"""How far ours and the paper's are from the middle of a row."""
LIGHT = "light"
"""The layout whose markers are smaller."""


def figure2(results: Results) -> Drawing:
    """Draw the scores with deviations of ours (filled) and the paper's (hollow).

    Ours on T0 are drawn beside the paper's, in the panel of their backbone. Ours of another suite, or of a backbone that the
    figure has not, have panels of their own.
    """
    tables = [printed_table(name) for name in TABLES]
    home = next((table for table in tables if results.suite == "t0" and table.has_backbone(results.backbone)), None)
    apart = bool(results.adapted) and home is None
    tall, low = max(PRINTED, len(results.adapted) + 2) * ROW + 1, PRINTED * ROW + 1
    if home:
        layout, heights, widths = "HO;HE", [low, max(low, tall - low)], [1, 1.2]
    elif apart:
        layout, heights, widths = "AAB;TOE", [tall, low], [1, 1, 1.2]
    else:
        layout, heights, widths = "TOE", [low], [1, 1, 1.2]
    figure, axes = new_figure(12, sum(heights) + 1.2, layout, TITLE, height_ratios=heights, width_ratios=widths)
    missing = [] if results.cells else [NO_SCORES]
    where = f"T0, {(home or tables[0]).backbone}"
    blocks = _blocks(home or tables[0])
    _draw_parameters(axes["E"], results if home else Results({}, ()), blocks, where, tables[0].metric, missing)
    if home:
        missing += _draw_home(axes["H"], results, home)
    elif apart:
        missing += _draw_apart(axes["A"], axes["B"], results)
    for panel, table in zip("O" if home else "TO", [table for table in tables if table is not home], strict=True):
        missing += _draw_printed(axes[panel], table)
    printed_rows = [row for table in (*tables, *blocks) for row in table.rows.values()]
    printed_methods = [row.method for row in printed_rows]
    layouts = {*(row.layout for row in printed_rows), *(group.first.layout for group in results.adapted)}
    kinds = [handle("ours", marker="o"), handle("the paper's", marker="o", hollow=True)]
    kinds += [handle("light layout", marker="o", size="small")] if LIGHT in layouts else []
    methods = method_handles([*printed_methods, *(group.method for group in results.adapted)])
    sweep = [handle("mhr_z, coarser routing", LOOKS["mhr_z"][0], ".", COARSER)]
    add_legend(figure, [*kinds, *methods, *(sweep if _is_swept(results, blocks) else [])], columns=7)
    return Drawing(TITLE, figure, tuple(missing))


def _blocks(table: PrintedTable) -> list[PrintedTable]:
    """The blocks of Table 6 of the same backbone, which have the parameters."""
    return [block for block in printed_blocks() if (block.suite, block.backbone) == (table.suite, table.backbone)]


def _is_swept(results: Results, blocks: Sequence[PrintedTable]) -> bool:
    """Whether a line of coarser routings is drawn, of ours or of the authors' notebook."""
    return _has_sweep(blocks) or any(len(series.groups) > 1 for series in coarser(results, "mhr_z"))


def _has_sweep(blocks: Sequence[PrintedTable]) -> bool:
    sweep = printed()["notebook_mhr_z"]
    return any((block.suite, block.backbone) == (sweep["suite"], sweep["backbone"]) for block in blocks)


def _draw_home(axes: Axes, results: Results, table: PrintedTable) -> list[str]:
    """The paper's backbone that ours are of, and ours. Returns what is missing.

    Ours of the light layout stand beside those of Table 6, and ours of methods that only it has do too.
    """
    methods, layouts = ({getattr(group.first, of) for group in results.adapted} for of in ("method", "layout"))
    of_full, *others = sorted(_blocks(table), key=lambda block: block.layout != table.layout)
    more = {name: row for name, row in of_full.rows.items() if name in methods}
    of_other_layouts = [block for block in others if block.layout in layouts and not differs(results, block)]
    papers = [replace(table, rows={**more, **table.rows}), *of_other_layouts]
    rows = beside(results, results.adapted, papers)
    missing = _lacking(rows, f"T0 on {table.backbone}")
    _draw_methods(axes, rows, f"T0, {table.backbone}", table.metric, [scores_are(results), *missing])
    return missing


def _draw_printed(axes: Axes, table: PrintedTable) -> list[str]:
    """A backbone of the paper's that ours are not of. Returns what is missing."""
    rows = beside(Results({}, ()), [], [table])
    missing = _lacking(rows, f"T0 on {table.backbone}")
    _draw_methods(axes, rows, f"T0, {table.backbone}", table.metric, missing)
    return missing


def _draw_apart(methods: Axes, parameters: Axes, results: Results) -> list[str]:
    """Ours of another suite than T0, or another backbone, with the paper's scores if it has such. Returns what is missing."""
    papers = [*printed_blocks(), printed_table("table3")]
    of_suite = [paper for paper in papers if paper.has_suite(results.suite)]
    paper = next((paper for paper in of_suite if results.suite != "t0" or paper.has_backbone(results.backbone)), None)
    rows = beside(results, results.adapted, [paper] if paper else [])
    where = f"{results.suite}, {results.backbone}"
    lacking = _lacking(rows, where)
    bare = next((group.score("zero_shot") for group in results.methods if group.method == BACKBONE), None)
    label = results.metric_name + (f" (bare backbone, zero-shot: {bare})" if bare else "")
    _draw_methods(methods, rows, f"ours: {where}", label, [scores_are(results), *lacking], 96)
    _draw_parameters(parameters, results, [paper] if paper else [], f"ours: {where}", results.metric_name)
    return lacking


def _lacking(rows: Sequence[Row], where: str) -> list[str]:
    """Which rows of the paper we have no scores of."""
    if not any(row.group for row in rows):
        return [f"No cells of {where} yet."]
    lacking = [row.label for row in rows if not row.group]
    return [f"No cells of {', '.join(lacking)} for {where} yet."] if lacking else []


def _draw_methods(axes: Axes, rows: Sequence[Row], title: str, metric: str, notes: Sequence[str], width: int = 48) -> None:
    """A row for each method: ours above the paper's."""
    for place, row in enumerate(rows):
        score = row.group.score("adapted") if row.group else None
        theirs = next((paper for paper in row.papers if paper), None)
        method = row.label.split()[0]
        if row.group and score:
            size = _size(row.group.first.layout)
            mark(axes, score.mean, place - (APART if theirs else 0), LOOKS[method], ours=True, x_std=score, size=size)
        if theirs:
            size, y = _size(theirs.layout), place + (APART if score else 0)
            mark(axes, theirs.score.mean, y, LOOKS[method], ours=False, x_std=theirs.score, size=size)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(title, loc="left")
    say_missing(axes, metric, notes, width)


def _draw_parameters(
    axes: Axes, results: Results, blocks: Sequence[PrintedTable], title: str, metric: str, missing: Sequence[str] = ()
) -> None:
    """A point for each method; what only differs in the granularity of its routing is joined by a line."""
    for group in results.adapted:
        score = group.score("adapted")
        if score and group.first.parameters.adaptation:
            size = _size(group.first.layout)
            mark(axes, for_new_task(group), score.mean, LOOKS[group.method], ours=True, y_std=score, size=size)
    for series in coarser(results, "mhr_z"):
        draw_line(axes, series, COARSER, LOOKS["mhr_z"][0])
    counted = [row for block in blocks for row in block.rows.values() if row.adaptation]
    for row in counted:
        x, size = row.adapted_parameters, _size(row.layout)
        mark(axes, x, row.score.mean, LOOKS[row.method], ours=False, y_std=row.score, size=size)
    notes = [MIXED] if counted and any(METHODS[group.method].adapts_routing for group in results.adapted) else []
    if _has_sweep(blocks):  # the panel that the paper has
        _draw_tfew(axes)
        points = printed()["notebook_mhr_z"]["points"]
        axes.plot(*zip(*points, strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1, zorder=2)
        notes.append(NOTEBOOK)
    axes.set_ylabel(metric)
    axes.set_title(title, loc="left")
    scale_parameters(axes, PARAMETERS, [*notes, *missing])


def _size(layout: str | None) -> Size:
    return "small" if layout == LIGHT else "big"


def _draw_tfew(axes: Axes) -> None:
    """The score that was the best before, of T-Few on T0-3B, as a line."""
    table = printed_table("figure2_t03b")
    score = table.rows["tfew"].score.mean
    axes.axhline(score, color=LOOKS["tfew"][0], linestyle="--", linewidth=0.8, zorder=1)
    axes.annotate(
        f"T-Few on\n{table.backbone}: {score}",
        (1, score),
        xycoords=axes.get_yaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color="#444444",
    )
