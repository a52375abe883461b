"""What holds: the table of claims, with their intervals on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mhrctl.report.claims import Finding, Judged, Judgement
from mhrctl.report.page.forest import Drawn, Forest, forest_of
from mhrctl.report.table import Table
from mhrctl.report.tables.claims import claims_table, title_of

KINDS: Mapping[Finding, str] = {"holds": "better", "fails": "worse", "not shown": "open"}
"""{verdict: how it is drawn}."""


@dataclass(frozen=True)
class ClaimsShown:
    """These are the claims as the page shows them.

    Attributes:
        table: of all.
        forest: of those about scores, whose differences have one unit; None where there are none.
        kinds: {verdict: how it is drawn}.
    """

    table: Table
    forest: Forest | None
    kinds: Mapping[Finding, str]


def claims_shown(judgement: Judgement, *, margin: float, metric: str) -> ClaimsShown | None:
    """Lay out the claims; None where none can be judged.

    Args:
        judgement: of all.
        margin: the difference of scores that is none.
        metric: of scores, as tables name it.
    """
    if not judgement.judged:
        return None
    drawn = {title_of(each): _drawn(each) for each in judgement.judged if each.tasks}
    return ClaimsShown(claims_table(judgement, margin=margin, metric=metric), forest_of(drawn), KINDS)


def _drawn(judged: Judged) -> Drawn:
    interval = judged.interval
    says = f"{interval.mean:+z.2f}, {interval.low:+z.2f} to {interval.high:+z.2f}, {judged.finding}"
    return Drawn((interval.mean, interval.low, interval.high), KINDS[judged.finding], says)
