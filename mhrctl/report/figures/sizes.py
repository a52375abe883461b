"""Scores are drawn against parameters, with more heads and with more skills: a panel of Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from mhrctl.config.grid import PLAIN
from mhrctl.report.figures.style import Line, Place, annotate, empty, handle, mark, scale_parameters
from mhrctl.report.results import Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

HEADS: Line = "-"
SKILLS: Line = "--"
COARSER: Line = ":"
GREY_LINE = "#888888"
PARAMETERS = "parameters trained for a new task"
NOTEBOOK = "Dots: the authors' notebook, not proof-read."


@dataclass(frozen=True)
class Series:
    """A series holds groups that differ in one thing.

    Attributes:
        groups: in the order of that thing.
        names: of the points.
    """

    groups: Sequence[Group]
    names: Sequence[str]


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
        names = [group.first.granularity if group.variant == PLAIN else group.variant for group in ordered]
        series.append(Series(ordered, [f"h{group.heads} {name}" for group, name in zip(ordered, names, strict=True)]))
    return series


def draw_sizes(axes: Axes, results: Results, methods: tuple[str, str]) -> list[str]:
    """Draw more heads and more skills of a method with one head and its multi-head kin. Returns what is missing."""
    heads, skills = more_heads(results, *methods), more_skills(results, *methods)
    missing = []
    if len(heads.groups) < 2:
        missing.append(f"No cells of more heads yet: run {methods[0]}, and {methods[1]} with several heads.")
    if not skills:
        missing.append(f"No cells of more skills yet: add a variant with pretrain.skills to {methods[0]}.")
    if not heads.groups:
        empty(axes, missing)
        return missing
    for line, series in [(HEADS, heads), *((SKILLS, of_skills) for of_skills in skills)]:
        draw_line(axes, series, line)
    draw_points(axes, heads, "above", "before", "below")
    for series in skills:  # the plain ones are drawn
        varied = [place for place, group in enumerate(series.groups) if group.variant != PLAIN]
        draw_points(
            axes, Series([series.groups[place] for place in varied], [series.names[place] for place in varied]), "below"
        )
    axes.set_title(
        f"{methods[0]} (h1) and {methods[1]}, {heads.groups[0].first.skills} skills where none are named", loc="left"
    )
    axes.set_ylabel(results.metric_name)
    scale_parameters(axes, PARAMETERS, missing)
    return missing


def draw_line(axes: Axes, series: Series, line: Line, colour: str = GREY_LINE) -> None:
    """Draw a line through groups."""
    points = [(group.first.parameters.adaptation, score.mean) for group in series.groups if (score := group.score("adapted"))]
    axes.plot([x for x, _ in points], [y for _, y in points], line, color=colour, linewidth=1, zorder=1)


def draw_points(axes: Axes, series: Series, *places: Place) -> None:
    """Draw groups, each with its name, at these places by turns."""
    for group, name, place in zip(series.groups, series.names, cycle(places)):
        if score := group.score("adapted"):
            x = group.first.parameters.adaptation
            mark(axes, x, score.mean, group.method, ours=True, y_std=score)
            annotate(axes, name, x, score.mean, place)


def size_handles() -> list[Line2D]:
    """Make the entries of the legend for the lines."""
    return [handle("more heads", GREY_LINE, line=HEADS), handle("more skills", GREY_LINE, line=SKILLS)]


def _alike(results: Results, methods: Sequence[str], what: str) -> list[list[Group]]:
    """For each of these methods and each head count, the plain group and those that differ from it in `what` alone."""
    alike = []
    for plain in results.adapted:
        if plain.method in methods and plain.variant == PLAIN:
            of_kind = [group for group in results.adapted if (group.method, group.heads) == (plain.method, plain.heads)]
            alike.append([group for group in of_kind if group is plain or _differing(group, plain) == [what]])
    return alike


def _differing(group: Group, plain: Group) -> list[str]:
    facts = ("layout", "granularity", "skills")
    return [name for name in facts if getattr(group.first, name) != getattr(plain.first, name)]
