"""The claims are a forest: a row for each, with its mean difference and the interval of that, by what the results say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.colours import BLUE, INK, PAPER, RED
from mhrctl.report.bootstrap import LEVEL
from mhrctl.report.claims import Finding, Judged, Judgement
from mhrctl.report.figures.marks import SIZES
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.results import NO_SCORES
from mhrctl.report.tables.claims import TITLE, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

LOOKS: Mapping[Finding, tuple[str, str, str]] = {
    "holds": (BLUE, "o", BLUE),
    "fails": (RED, "X", RED),
    "not shown": (INK, "o", PAPER),
}
"""{verdict: colour of the line, marker, and what fills that}: the marker alone tells them apart."""
ROW = 0.27
"""Inches of a claim."""


def plan_claims(judgement: Judgement, *, margin: float, metric: str) -> Plan:
    """Plan the claims about scores, whose differences have one unit.

    Args:
        judgement: of all.
        margin: the difference of scores that is none.
        metric: of scores, as tables name it.
    """
    drawn = [each for each in judgement.judged if each.tasks]
    if not drawn:
        return Plan(TITLE, [], [NO_SCORES])
    notes = [
        f"Mean differences of {metric} over tasks and seeds; bars: {LEVEL:.0%} intervals (paired bootstrap over both).",
        f"Verdicts are corrected for {len(judgement.judged)} claims (Holm). By ≥ and = what is shaded is no difference.",
    ]
    panel = Panel(
        f"difference of {metric}",
        len(drawn) + 1,  # with 0
        partial(_draw, claims=drawn, margin=margin),
        _legend({each.finding for each in drawn}),
        notes,
        height=0.9 + ROW * max(len(drawn), 3),
    )
    return Plan(TITLE, [[panel]])


def _draw(axes: Axes, claims: Sequence[Judged], margin: float) -> None:
    axes.axvspan(-margin, margin, color=INK, alpha=0.07, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, each in enumerate(claims):
        interval, (colour, marker, inside) = each.interval, LOOKS[each.finding]
        reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar(
            interval.mean,
            place,
            xerr=reach,
            fmt=marker,
            color=colour,
            markerfacecolor=inside,
            markersize=SIZES["big"],
            elinewidth=1.2,
            capsize=3,
        )
    axes.set_yticks(range(len(claims)), [title_of(each) for each in claims])
    axes.set_ylim(len(claims) - 0.4, -0.6)


def _legend(findings: set[Finding]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=inside, linestyle="none", label=finding)
        for finding, (colour, marker, inside) in LOOKS.items()
        if finding in findings
    ]
