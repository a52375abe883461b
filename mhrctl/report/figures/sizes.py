"""Scores are drawn against parameters, with more heads and with more skills: a panel of Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.grid import PLAIN
from mhrctl.report.figures.apart import Named, heights, name_before
from mhrctl.report.figures.kept import kept_skills
from mhrctl.report.figures.marks import handle, mark_ours, method_handles, ours_are
from mhrctl.report.figures.plan import Panel
from mhrctl.report.figures.style import ROOM, Line, annotate, scale_parameters
from mhrctl.report.results import Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

HEADS: Line = "-"
SKILLS: Line = "--"
COARSER: Line = ":"
GREY_LINE = "#888888"
PARAMETERS = "parameters trained for a new task"
KEPT = "parameters kept of pre-training (skills alone)"
ON_ALL = "parameters trained on all tasks, their routing included"
TREND = 3
"""Points from which on a line through them says anything."""
APART = "Grey lines go to the number that has the routing of the training tasks too; they are apart where scores all but agree."
NOTEBOOK = "Dotted: coarser routings of mhr_z from the authors' notebook; the paper prints no such numbers."

Count = Callable[[Group], int]


@dataclass(frozen=True)
class Series:
    """A series holds groups that differ in one thing.

    Attributes:
        groups: in the order of that thing.
        names: of the points.
    """

    groups: Sequence[Group]
    names: Sequence[str]


def for_new_task(group: Group) -> int:
    """Return the numbers trained for a new task."""
    return group.first.parameters.adaptation


def on_all_tasks(group: Group) -> int:
    """Return the numbers trained on all training tasks together, their routing included."""
    return group.first.parameters.multi_task


def more_heads(results: Results, single: str, multi: str) -> Series:
    """Return `single` (one head) and `multi` of every head count, with the same number of skills."""
    plain = [group for group in results.adapted if group.method in (single, multi) and group.variant == PLAIN]
    alike = [group for group in plain if group.first.skills == plain[0].first.skills]
    ordered = sorted(alike, key=lambda group: group.heads or 0)
    return Series(ordered, [f"h{group.heads}" for group in ordered])


def more_skills(results: Results, *methods: str) -> list[Series]:
    """List for each of these methods and each head count its numbers of skills, if there are several."""
    series = []
    for groups in _alike(results, methods, "skills"):
        ordered = sorted(groups, key=lambda group: group.first.skills or 0)
        if len(ordered) > 1:
            series.append(Series(ordered, [f"{group.first.skills} skills" for group in ordered]))
    return series


def coarser(results: Results, *methods: str) -> list[Series]:
    """List for each of these methods and each head count its granularities of routing, by the parameters of a new task."""
    series = []
    for groups in _alike(results, methods, "granularity"):
        ordered = sorted(groups, key=lambda group: group.first.parameters.adaptation)
        series.append(Series(ordered, [f"h{group.heads} {granularity_of(group)}" for group in ordered]))
    return series


def granularity_of(group: Group) -> str:
    """Name what shares a routing by the variant, since blocks may be several."""
    return group.variant if group.variant != PLAIN else group.first.granularity or PLAIN


def size_panels(results: Results, methods: tuple[str, str]) -> list[Panel]:
    """Plan more heads and more skills of a method with one head and its multi-head kin.

    Args:
        results: ours.
        methods: of one head, and of several.

    Returns:
        A panel with the scores by the numbers trained for a new task, and one with the same scores by the numbers in the
        skills, from which a line goes to those and the routing of all training tasks; by the latter alone, if the scores at
        hand do not tell them apart.
    """
    heads, skills = more_heads(results, *methods), more_skills(results, *methods)
    missing = []
    if len(heads.groups) < 2:
        missing.append(f"No cells of more heads yet: run {methods[0]}, and {methods[1]} with several heads.")
    if not skills:
        missing.append(f"No cells of more skills yet: add a variant with pretrain.skills to {methods[0]}.")
    points = _points(heads, *skills)
    alike = heads.groups[0].first.skills if heads.groups else None
    title = f"{methods[0]} (h1) and {methods[1]}" + (
        f", {alike} skills where none are named" if skills else f", {alike} skills"
    )
    kept = kept_skills(results)
    draw = partial(_draw_sizes, heads=heads, skills=skills, metric=results.metric_name)
    handles = [*method_handles(group.method for group in points), *_line_handles(heads, skills)]
    routing = [handle("routing of training tasks", GREY_LINE, "|", "-")] if kept else []
    says = ours_are(results, points)
    return [
        Panel(title, len(points), partial(draw, count=for_new_task, label=PARAMETERS), handles, says, missing),
        Panel(
            "the same by multi-task parameters",
            len(points),
            partial(draw, kept=kept, count=_kept_in(kept), label=KEPT if kept else ON_ALL),
            [*handles, *routing],
            [*says, *([APART] if kept else [])],
        ),
    ]


def _kept_in(kept: Mapping[str, int]) -> Count:
    return (lambda group: kept[group.label]) if kept else on_all_tasks


def draw_line(axes: Axes, series: Series, line: Line, colour: str = GREY_LINE, count: Count = for_new_task) -> None:
    """Draw a line through groups, of which there are enough for one."""
    points = [(count(group), score.mean) for group in series.groups if (score := group.score("adapted"))]
    if len(points) >= TREND:
        axes.plot([x for x, _ in points], [y for _, y in points], line, color=colour, linewidth=1, zorder=1)


def _line_handles(heads: Series, skills: Sequence[Series]) -> list[Line2D]:
    """The entries of the legend for the lines that are drawn."""
    lines = [handle("more heads", GREY_LINE, line=HEADS)] if len(heads.groups) >= TREND else []
    more = any(len(series.groups) >= TREND for series in skills)
    return [*lines, handle("more skills", GREY_LINE, line=SKILLS)] if more else lines


def _draw_sizes(
    axes: Axes,
    heads: Series,
    skills: Sequence[Series],
    metric: str,
    count: Count,
    label: str,
    kept: Mapping[str, int] | None = None,
) -> None:
    """Draw the lines and the points of more heads and of more skills, and what shows the routing beside what is kept."""
    draw_line(axes, heads, HEADS, count=count)
    for series in skills:
        draw_line(axes, series, SKILLS, count=count)
    for group in _points(heads, *skills):
        mark_ours(axes, group, x=count(group), size="small")
    axes.margins(y=ROOM)
    routing = _draw_routing(axes, _points(heads, *skills), kept) if kept else {}
    axes.set_ylabel(metric)
    scale_parameters(axes, label)
    _name_both(axes, heads, skills, count, routing)


def _draw_routing(axes: Axes, groups: Sequence[Group], kept: Mapping[str, int]) -> dict[str, float]:
    """Draw from each point a line to the number that has the routing of the training tasks too, apart from all others.

    Returns:
        {label: height of its line}.
    """
    scores = {group.label: score.mean for group in groups if (score := group.score("adapted"))}
    limits = axes.get_ylim()
    lines = dict(zip(scores, heights(axes, list(scores.values())), strict=True))
    for group in groups:
        if group.label in lines:
            start, line = kept[group.label], lines[group.label]
            path = [start, start, on_all_tasks(group)], [scores[group.label], line, line]
            axes.plot(*path, color=GREY_LINE, linewidth=1, marker="|", markevery=[2], zorder=1)
    axes.set_ylim(limits)
    return lines


def _name_both(axes: Axes, heads: Series, skills: Sequence[Series], count: Count, lines: Mapping[str, float]) -> None:
    """Name the points, those of more skills below them and below their line to the routing, if they have one."""
    of_heads = zip(heads.groups, heads.names, strict=True)
    name_before(
        axes,
        [
            Named(name, count(group), score.mean, lines.get(group.label))
            for group, name in of_heads
            if (score := group.score("adapted"))
        ],
    )
    for series in skills:
        for group, name in zip(series.groups, series.names, strict=True):
            score = group.score("adapted")
            if score and group.variant != PLAIN:  # the plain ones are of the heads
                annotate(axes, name, count(group), lines.get(group.label, score.mean), "below")


def _points(heads: Series, *skills: Series) -> list[Group]:
    """Each group that is drawn, once."""
    return list({group.label: group for series in (heads, *skills) for group in series.groups}.values())


def _alike(results: Results, methods: Sequence[str], what: str) -> list[list[Group]]:
    """For each of these methods and each head count, the plain group and those that differ from a plain one in `what` alone."""
    alike = []
    for method in methods:
        of_method = [group for group in results.adapted if group.method == method]
        plain = next((group for group in of_method if group.variant == PLAIN), None)
        if plain:
            of_kind = [group for group in of_method if group.variant == PLAIN or _differing(group, plain) == [what]]
            alike += [
                [group for group in of_kind if group.heads == heads] for heads in dict.fromkeys(of.heads for of in of_kind)
            ]
    return alike


def _differing(group: Group, plain: Group) -> list[str]:
    facts = ("layout", "granularity", "skills")
    return [name for name in facts if getattr(group.first, name) != getattr(plain.first, name)]
