"""The results are dots: a row for each method, its score beside its difference to the baseline with the interval of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.colours import INK
from mhrctl.config.methods import BACKBONE
from mhrctl.report.bootstrap import LEVEL
from mhrctl.report.differences import BASELINE, Difference, compare_to
from mhrctl.report.figures.marks import SIZES, mark_ours, ours_are
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.figures.style import LOOKS
from mhrctl.report.results import NO_SCORES, Group, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Results by method"
ROW = 0.27
"""Inches of a method."""


def plan_dots(results: Results, against: str = BASELINE) -> Plan:
    """Plan the adapted scores of all methods, and their differences to one of them.

    Args:
        results: ours.
        against: label of the method that the others are compared to; without it there are scores alone.
    """
    groups = results.adapted
    if not groups:
        return Plan(TITLE, [], [NO_SCORES])
    height = 0.9 + ROW * max(len(groups), 3)
    bare = next((group.score("zero_shot") for group in results.methods if group.method == BACKBONE), None)
    title = f"{results.metric_name}, adapted" + (f" (bare backbone: {bare})" if bare else "")
    alone = [f"One method alone: {group.label}, {results.metric_name} {group.score('adapted')}." for group in groups]
    scores = Panel(title, len(groups), partial(_draw_scores, groups=groups), (), ours_are(results, groups), (), alone, height)
    base = next((group for group in groups if group.label == against), None)
    differences = {label: difference for label, difference in compare_to(base, results).items() if difference}
    sure = [difference for difference in differences.values() if difference.has_interval]
    notes = [
        f"Differences: each task's score less that of {against} with the same seed, mean over tasks and seeds"
        + (f"; bars: {LEVEL:.0%} intervals (paired bootstrap over tasks and seeds)." if sure else ".")
    ]
    apart = Panel(
        f"difference to {against}",
        len(differences) + 1 if differences else 0,
        partial(_draw_differences, groups=groups, differences=differences, against=against),
        (),
        notes,
        height=height,
    )
    return Plan(f"{TITLE}: {results.suite} on {results.backbone}", [[scores, apart]])


def _draw_scores(axes: Axes, groups: Sequence[Group]) -> None:
    for place, group in enumerate(groups):
        mark_ours(axes, group, y=place)
    _name_rows(axes, [group.label for group in groups])


def _draw_differences(axes: Axes, groups: Sequence[Group], differences: Mapping[str, Difference], against: str) -> None:
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, group in enumerate(groups):
        colour, marker = LOOKS[group.method]
        if group.label == against:
            axes.plot(0, place, marker, color=colour, markersize=SIZES["big"])
        difference = differences.get(group.label)
        if difference is None:
            continue
        interval = difference.interval
        reach = [[interval.mean - interval.low], [interval.high - interval.mean]] if difference.has_interval else None
        axes.errorbar(
            interval.mean, place, xerr=reach, fmt=marker, color=colour, markersize=SIZES["big"], elinewidth=1.2, capsize=3
        )
    _name_rows(axes, [group.label for group in groups])


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
