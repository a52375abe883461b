"""The scores of a method's seeds and tasks are folded into one: by means, or as the paper does for T0 by medians over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from mhrctl.report.printed import MeanStd

FEWEST_TASKS, FEWEST_SEEDS = 5, 3
"""Of fewer tasks no interval is given, of fewer seeds no deviation, and of fewer of either no verdict."""


@dataclass(frozen=True)
class Aggregate:
    """An aggregate is a way to fold scores.

    Attributes:
        title: heads a column of such scores.
        says: tells what a score and its deviation are.
    """

    title: str
    says: str


MEANS = Aggregate("mean\nof seeds", "mean over n seeds of the mean over tasks, ± its deviation over seeds (from three on)")
MEDIANS = Aggregate(
    "median\nof seeds",
    "mean over tasks of each task's median over n seeds, ± the mean over tasks of the deviation over seeds (from three on)",
)
BY_SUITE: Mapping[str, Aggregate] = {"t0": MEDIANS}
"""{suite: the aggregate of its scores in the paper} (section 4.2); of any other suite it is MEANS."""


def aggregate_of(suite: str | None) -> Aggregate:
    """Return the aggregate by which the scores of a suite are reported."""
    return BY_SUITE.get(suite or "", MEANS)


def mean_std(values: Sequence[float]) -> MeanStd | None:
    """Compute the mean of one value a seed, and of three or more their standard deviation (by n - 1); None of no values."""
    if not values:
        return None
    return MeanStd(fmean(values), stdev(values) if len(values) >= FEWEST_SEEDS else None)


def mean_of_medians(by_task: Mapping[str, Sequence[float]]) -> MeanStd | None:
    """Compute the mean over tasks of each task's median over seeds, and of each task's deviation over seeds.

    Of the paper's sentence, "the median and standard deviation [...] for each test task across 3 seeds" (section 4.2), this is
    the reading whose size is that of what it prints; the authors' `get_metrics.py` had two others (docs/fidelity.md).

    Args:
        by_task: {task: scores, one a seed}.

    Returns:
        None of no tasks; no deviation where a task has fewer than three seeds.
    """
    if not by_task:
        return None
    enough = all(len(scores) >= FEWEST_SEEDS for scores in by_task.values())
    return MeanStd(fmean(map(median, by_task.values())), fmean(map(stdev, by_task.values())) if enough else None)
