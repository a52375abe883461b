"""Differences between methods are taken on the scores that they share, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mhrctl.errors import ParamsError, unknown
from mhrctl.report.bootstrap import LEVEL, RESAMPLES, Interval, paired_bootstrap
from mhrctl.report.results import MISSING, NO_SCORES, Group, Results
from mhrctl.report.table import Table

BASELINE = "lora"
ALL = "all"


@dataclass(frozen=True)
class Difference:
    """A difference is one method's scores less another's.

    Attributes:
        tasks: how many both were adapted to.
        seeds: how many both have of these tasks.
        interval: the mean difference, and how sure it is.
    """

    tasks: int
    seeds: int
    interval: Interval

    @property
    def mean(self) -> str:
        """The mean difference as people read it."""
        return f"{self.interval.mean:+z.2f}"

    @property
    def has_interval(self) -> bool:
        """Whether there is more than one pair of scores, without which there is nothing to resample."""
        return self.tasks * self.seeds > 1

    @property
    def ends(self) -> str:
        """The interval as people read it, where there is one."""
        return f"{self.interval.low:+z.2f} to {self.interval.high:+z.2f}" if self.has_interval else MISSING

    @property
    def not_above(self) -> str:
        """The share of resamples at or below 0, where there is an interval."""
        return f"{self.interval.not_above:.1%}" if self.has_interval else MISSING


def compare(ours: Group, other: Group) -> Difference | None:
    """Compare two methods on the test tasks and seeds that both were adapted with; None if they share none."""
    first, second = ours.by_task("adapted"), other.by_task("adapted")
    tasks = sorted(first.keys() & second.keys())
    seeds = sorted(set.intersection(*(first[task].keys() & second[task].keys() for task in tasks)) if tasks else (), key=str)
    if not seeds:
        return None
    scores = np.array([[first[task][seed] - second[task][seed] for seed in seeds] for task in tasks])
    return Difference(len(tasks), len(seeds), paired_bootstrap(scores))


def differences_table(results: Results, *, against: str = BASELINE, labels: Sequence[str] = (ALL,)) -> Table:
    """Tabulate the differences of methods to one of them, adapted; what is missing is said under the table.

    Args:
        results: ours.
        against: label of the method that the others are compared to.
        labels: of the others; `all` is every one that was adapted.

    Raises:
        ParamsError: if a label is of no method with adapted scores, where there are scores at all.
    """
    adapted = {group.label: group for group in results.adapted}
    if not adapted:
        return _table(results, against, [], [NO_SCORES])
    chosen = [label for label in adapted if label != against] if ALL in labels else list(dict.fromkeys(labels))
    if missing := [label for label in (against, *chosen) if label not in adapted]:
        raise ParamsError(unknown("method", missing[0], adapted))
    compared = {label: compare(adapted[label], adapted[against]) for label in chosen}
    rows = [_row(label, difference) for label, difference in compared.items() if difference]
    notes = [
        f"Each task's score less that of {against} with the same seed; mean over tasks and seeds.",
        *interval_notes([difference for difference in compared.values() if difference]),
        *(adapted[label].note for label in (against, *chosen) if adapted[label].note),
    ]
    if apart := [label for label, difference in compared.items() if difference is None]:
        notes.append(f"No task and seed in common with {against}: {', '.join(apart)}.")
    return _table(results, against, rows, notes)


def interval_notes(differences: Sequence[Difference]) -> list[str]:
    """Say what the intervals of these differences are of, and what they do not cover."""
    lines = [f"Interval: {RESAMPLES:,} resamples of tasks, and of seeds for all tasks alike (paired bootstrap)."]
    if any(difference.seeds == 1 and difference.has_interval for difference in differences):
        lines.append("Of one seed it is of tasks alone: how much another seed would change is not in it.")
    if any(difference.tasks == 1 and difference.has_interval for difference in differences):
        lines.append("Of one task it is of seeds alone: how much another task would change is not in it.")
    if not all(difference.has_interval for difference in differences):
        lines.append("One task with one seed has no interval.")
    return lines


def baseline_differences(results: Results) -> Table:
    """Tabulate the differences of all methods to lora, as far as there is one."""
    if results.adapted and BASELINE not in {group.label for group in results.adapted}:
        return _table(results, BASELINE, [], [f"No adapted scores of {BASELINE}, which the others would be compared to."])
    return differences_table(results)


def _table(results: Results, against: str, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> Table:
    columns = ("tasks", "seeds", f"adapted\n{results.metric_name}", f"{LEVEL:.0%}\ninterval", "resamples\nat or below 0")
    return Table(f"Differences to {against}", ("method", *columns), rows, notes)


def _row(label: str, difference: Difference) -> list[str]:
    counts = [str(difference.tasks), str(difference.seeds)]
    return [label, *counts, difference.mean, difference.ends, difference.not_above]
