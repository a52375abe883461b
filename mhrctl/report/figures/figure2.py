"""Figure 2 shows the methods on T0 with two backbones, and their scores against the parameters that they adapt.

Scores are points with their deviations and no bars: bars from zero would hide what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.colours import INK
from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.report.figures.apart import Named, make_room, name_before
from mhrctl.report.figures.marks import (
    LIGHT,
    OF_PAPER,
    OURS,
    PAPERS,
    handle,
    mark_ours,
    mark_paper,
    method_handles,
    ours_are,
)
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.figures.sizes import COARSER, NOTEBOOK, PARAMETERS, coarser, draw_line, for_new_task
from mhrctl.report.figures.style import LOOKS, scale_parameters
from mhrctl.report.printed import PrintedRow, PrintedTable, printed, printed_blocks, printed_table
from mhrctl.report.results import NO_SCORES, Group, Results
from mhrctl.report.tables.beside import Row, beside, differs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

TITLE = "Figure 2: methods, and parameters of adaptation"
TABLES = ("figure2_t5xl", "figure2_t03b")
MIXED = "The paper counts of poly and mhr the mixed LoRA, ours all that is trained."
ROW = 0.22
"""Inches of a method."""
APART = 0.16
"""How far ours and the paper's are from the middle of a row."""
NAMED = 8
"""Points of a panel that have their names beside them; more have a legend."""


def figure2(results: Results) -> Plan:
    """Plan the scores with deviations of ours (filled) and the paper's (hollow).

    Ours on T0 are drawn beside the paper's, in the panel of their backbone. Ours of another suite, or of a backbone that the
    figure has not, have panels of their own.
    """
    tables = [printed_table(name) for name in TABLES]
    home = next((table for table in tables if results.suite == "t0" and table.has_backbone(results.backbone)), None)
    shown = results if home else Results({}, ())
    of_papers = home or tables[0]
    parameters = _parameters(shown, _blocks(of_papers), f"T0, {of_papers.backbone}", tables[0].metric)
    others = [_printed(table) for table in tables if table is not home]
    if home:
        rows = [[_home(results, home), parameters], others]
    elif results.adapted:
        rows = [_apart(results), [*others, parameters]]
    else:
        rows = [[*others, parameters]]
    return Plan(TITLE, rows, [] if results.cells else [NO_SCORES])


def _blocks(table: PrintedTable) -> list[PrintedTable]:
    """The blocks of Table 6 of the same backbone, which have the parameters."""
    return [block for block in printed_blocks() if (block.suite, block.backbone) == (table.suite, table.backbone)]


def _has_sweep(blocks: Sequence[PrintedTable]) -> bool:
    sweep = printed()["notebook_mhr_z"]
    return any((block.suite, block.backbone) == (sweep["suite"], sweep["backbone"]) for block in blocks)


def _home(results: Results, table: PrintedTable) -> Panel:
    """The paper's backbone that ours are of, and ours.

    Ours of the light layout stand beside those of Table 6, and ours of methods that only it has do too.
    """
    methods, layouts = ({getattr(group.first, of) for group in results.adapted} for of in ("method", "layout"))
    of_full, *others = sorted(_blocks(table), key=lambda block: block.layout != table.layout)
    more = {name: row for name, row in of_full.rows.items() if name in methods}
    of_other_layouts = [block for block in others if block.layout in layouts and not differs(results, block)]
    papers = [replace(table, rows={**more, **table.rows}), *of_other_layouts]
    rows = beside(results, results.adapted, papers)
    missing = _lacking(rows, f"T0 on {table.backbone}")
    return _methods(results, rows, f"T0, {table.backbone}", table.metric, missing)


def _printed(table: PrintedTable) -> Panel:
    """A backbone of the paper's that ours are not of."""
    rows = beside(Results({}, ()), [], [table])
    missing = _lacking(rows, f"T0 on {table.backbone}")
    return _methods(Results({}, ()), rows, f"T0, {table.backbone}", table.metric, missing)


def _apart(results: Results) -> list[Panel]:
    """Ours of another suite than T0, or another backbone, with the paper's scores if it has such."""
    papers = [*printed_blocks(), printed_table("table3")]
    of_suite = [paper for paper in papers if paper.has_suite(results.suite)]
    paper = next((paper for paper in of_suite if results.suite != "t0" or paper.has_backbone(results.backbone)), None)
    shown = [paper] if paper else []
    rows = beside(results, results.adapted, shown)
    where = f"{results.suite}, {results.backbone}"
    bare = next((group.score("zero_shot") for group in results.methods if group.method == BACKBONE), None)
    label = results.metric_name + (f" (bare backbone, zero-shot: {bare})" if bare else "")
    scores = _methods(results, rows, f"ours: {where}", label, _lacking(rows, where))
    return [scores, _parameters(results, shown, f"ours: {where}", results.metric_name)]


def _lacking(rows: Sequence[Row], where: str) -> list[str]:
    """Which rows of the paper we have no scores of."""
    if not any(row.group for row in rows):
        return [f"No cells of {where} yet."]
    lacking = [row.label for row in rows if not row.group]
    return [f"No cells of {', '.join(lacking)} for {where} yet."] if lacking else []


def _methods(results: Results, rows: Sequence[Row], title: str, label: str, missing: Sequence[str]) -> Panel:
    """A row for each method: ours above the paper's."""
    groups = [row.group for row in rows if row.group]
    papers = [paper for row in rows if (paper := _theirs(row))]
    return Panel(
        title,
        len(rows),
        partial(_draw_methods, rows=rows, label=label),
        _kinds(groups, papers),
        [*ours_are(results, groups), *([OF_PAPER] if papers else [])],
        missing,
        [f"{title}: {group.label} alone, {results.metric_name} {group.score('adapted')}." for group in groups],
        1.1 + ROW * max(len(rows), 7),
    )


def _theirs(row: Row) -> PrintedRow | None:
    return next((paper for paper in row.papers if paper), None)


def _kinds(groups: Sequence[Group], papers: Sequence[PrintedRow]) -> list[Line2D]:
    """What tells ours from the paper's, and the light layout, where there are both."""
    both = [handle(OURS, INK, "o"), handle(PAPERS, INK, "o", hollow=True)] if groups and papers else []
    layouts = {*(group.first.layout for group in groups), *(paper.layout for paper in papers)}
    return [*both, handle("light layout", INK, "o", size="small")] if LIGHT in layouts else both


def _draw_methods(axes: Axes, rows: Sequence[Row], label: str) -> None:
    for place, row in enumerate(rows):
        theirs = _theirs(row)
        is_ours = row.group is not None and row.group.score("adapted") is not None
        if row.group:
            mark_ours(axes, row.group, y=place - (APART if theirs else 0))
        if theirs:
            mark_paper(axes, theirs, y=place + (APART if is_ours else 0))
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)


def _parameters(results: Results, blocks: Sequence[PrintedTable], title: str, metric: str) -> Panel:
    """A point for each method; what only differs in the granularity of its routing is joined by a line."""
    groups = [group for group in results.adapted if group.score("adapted") and group.first.parameters.adaptation]
    papers = [row for block in blocks for row in block.rows.values() if row.adaptation]
    is_named = len(groups) + len(papers) <= NAMED
    sweep = _has_sweep(blocks)
    handles = _kinds(groups, papers)
    if not is_named:
        handles += method_handles([*(group.method for group in groups), *(row.method for row in papers)], hollow=not groups)
    if sweep or any(len(series.groups) > 1 for series in coarser(results, "mhr_z")):
        handles.append(handle("mhr_z, coarser routing", LOOKS["mhr_z"][0], ".", COARSER))
    notes = [*ours_are(results, groups), *([OF_PAPER] if papers else [])]
    notes += [MIXED] if papers and any(METHODS[group.method].adapts_routing for group in groups) else []
    return Panel(
        title,
        len(groups) + len(papers),
        partial(_draw_parameters, results=results, groups=groups, papers=papers, metric=metric, sweep=sweep, named=is_named),
        handles,
        notes + ([NOTEBOOK] if sweep else []),
    )


def _draw_parameters(
    axes: Axes,
    results: Results,
    groups: Sequence[Group],
    papers: Sequence[PrintedRow],
    metric: str,
    *,
    sweep: bool,
    named: bool,
) -> None:
    for group in groups:
        mark_ours(axes, group, x=for_new_task(group))
    for series in coarser(results, "mhr_z"):
        draw_line(axes, series, COARSER, LOOKS["mhr_z"][0])
    for row in papers:
        mark_paper(axes, row, x=row.adapted_parameters)
    if sweep:  # the panel that the paper has
        _draw_tfew(axes)
        points = printed()["notebook_mhr_z"]["points"]
        axes.plot(*zip(*points, strict=True), COARSER + ".", color=LOOKS["mhr_z"][0], linewidth=1, zorder=2)
    axes.set_ylabel(metric)
    scale_parameters(axes, PARAMETERS)
    if named:
        points = [Named(group.label, for_new_task(group), score.mean) for group in groups if (score := group.score("adapted"))]
        points += [Named(row.label, row.adapted_parameters, row.score.mean) for row in papers]
        make_room(axes, points)
        name_before(axes, points)


def _draw_tfew(axes: Axes) -> None:
    """The score that was the best before, of T-Few on T0-3B, as a line."""
    table = printed_table("figure2_t03b")
    score = table.rows["tfew"].score.mean
    axes.axhline(score, color=LOOKS["tfew"][0], linestyle="--", linewidth=0.8, zorder=1)
    axes.annotate(
        f"T-Few on {table.backbone}: {score}",
        (0.99, score),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
    )
