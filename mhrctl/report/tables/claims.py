"""A table says of each claim whether the results at hand carry it, and what they could have shown."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.report.bootstrap import LEVEL, RESAMPLES
from mhrctl.report.claims import ALIGNMENT, CLAIMS, POWER, Judged, Judgement, Says
from mhrctl.report.results import NO_SCORES
from mhrctl.report.table import Table, Value

TITLE = "What holds"
SIGNS: dict[Says, str] = {"more": ">", "no less": "≥", "the same": "="}
ALIGNMENT_DIGITS, SCORE_DIGITS = 3, 2


def claims_table(judgement: Judgement, *, margin: float, metric: str) -> Table:
    """Tabulate the claims in their order; what cannot be judged is named below with the reason.

    Args:
        judgement: of all.
        margin: the difference of scores that is none.
        metric: of scores, as tables name it.
    """
    columns = ("n", "mean", f"{LEVEL:.0%}\ninterval", "above\n0", "p", "could\nshow", "verdict")
    rows = [_row(each) for each in judgement.judged]
    return Table(TITLE, ("claim", *columns), rows, _notes(judgement, margin, metric))


def title_of(judged: Judged) -> str:
    """Return the number of a claim, what it says of which methods and, of alignment, on which gradients."""
    first, second = judged.labels
    of_gradients = f", {judged.claim.on}" if judged.claim.on in ALIGNMENT else ""
    return f"{judged.claim.number} {first} {SIGNS[judged.claim.says]} {second}{of_gradients}"


def _row(judged: Judged) -> list[str]:
    interval, digits = judged.interval, SCORE_DIGITS if judged.tasks else ALIGNMENT_DIGITS
    mean, low, high = interval.mean, interval.low, interval.high
    above = 1 - interval.not_above
    return [
        title_of(judged),
        f"{judged.tasks}x{judged.seeds}" if judged.tasks else f"{judged.seeds}",
        Value(f"{mean:+z.{digits}f}", {"": mean}),
        Value(f"{low:+z.{digits}f} to {high:+z.{digits}f}", {"low": low, "high": high}),
        Value(f"{above:.0%}", {"": above}),
        Value(f"{judged.p:.3f}" if judged.p >= 0.001 else "<.001", {"": judged.p}),
        Value(f"{judged.least:.{digits}f}", {"": judged.least}),
        judged.finding,
    ]


def _notes(judgement: Judgement, margin: float, metric: str) -> list[str]:
    notes = [f"{claim.number}: {claim.text}" for claim in CLAIMS if claim in {each.claim for each in judgement.judged}]
    if judgement.judged:
        notes += _how(judgement.judged, margin, metric)
    if judgement.open:
        lacking = "; ".join(f"{claim.number}, {why}" for claim, why in judgement.open.items())
        notes.append(f"Not judged: {lacking}.")
    return notes if judgement.judged else [NO_SCORES, *notes]


def _how(judged: Sequence[Judged], margin: float, metric: str) -> list[str]:
    shown = f"{POWER:.0%} of such studies would show, at the correction's first step"
    return [
        f"Mean differences of {metric} on n test tasks x seeds; of cosines of gradients where n is seeds alone.",
        f"Interval: {RESAMPLES:,} resamples of tasks, and of seeds for all tasks alike (paired bootstrap).",
        f"p: two-sided, of the resamples, by Holm's correction for {len(judged)} claims; below {1 - LEVEL:.2f} it is shown.",
        f"By ≥ and = a difference of up to {margin:g} is none (report.margin).",
        f"Could show: the smallest difference (of ≥ and = the smallest margin) that {shown}.",
    ]
