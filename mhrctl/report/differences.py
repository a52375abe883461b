"""Differences between methods are taken on the scores that they share, with intervals and what can be said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mhrctl.config.cells import label_called
from mhrctl.errors import ParamsError, unknown
from mhrctl.report.aggregates import FEWEST_SEEDS, FEWEST_TASKS
from mhrctl.report.bootstrap import LEVEL, RESAMPLES, Interval, paired_bootstrap
from mhrctl.report.results import MISSING, NO_SCORES, Group, Results
from mhrctl.report.table import Table, Value

BASELINE = "lora"
ALL = "all"

Verdict = Literal["better", "worse", "open", "too few"]
Compared = Mapping[str, "Difference | None"]
"""{label: its difference to the baseline}; None of what shares no task and seed with it."""
ByTask = Mapping[str, Mapping[int | None, float]]
"""{task: {seed: score}}."""


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
    def has_interval(self) -> bool:
        """Whether there are so many tasks that resampling them says something."""
        return self.tasks >= FEWEST_TASKS

    @property
    def verdict(self) -> Verdict:
        """What can be said: nothing of too few tasks or seeds, and nothing for sure where the interval holds 0."""
        if not self.has_interval or self.seeds < FEWEST_SEEDS:
            return "too few"
        return "better" if self.interval.low > 0 else "worse" if self.interval.high < 0 else "open"

    @property
    def shown_mean(self) -> str:
        """The mean difference as people read it."""
        return Value(f"{self.interval.mean:+z.2f}", {"": self.interval.mean})

    @property
    def ends(self) -> str:
        """The interval as people read it, where there is one."""
        if not self.has_interval:
            return MISSING
        low, high = self.interval.low, self.interval.high
        return Value(f"{low:+z.2f} to {high:+z.2f}", {"low": low, "high": high})

    @property
    def no_gain(self) -> str:
        """The share of resamples without a gain, where there is an interval."""
        share = self.interval.not_above
        return Value(f"{share:.1%}", {"": share}) if self.has_interval else MISSING


def compare(ours: Group, other: Group) -> Difference | None:
    """Compare two methods on the test tasks and seeds that both were adapted with; None if they share none."""
    scores = paired(ours.by_task("adapted"), other.by_task("adapted"))
    if scores is None:
        return None
    tasks, seeds = scores.shape
    return Difference(tasks, seeds, paired_bootstrap(scores))


def paired(first: ByTask, second: ByTask) -> NDArray[np.float64] | None:
    """Return the differences of scores on the tasks that both have, with the seeds that all of these have, [tasks, seeds].

    Args:
        first: {task: {seed: score}}.
        second: what is taken off.
    """
    tasks, seeds = shared(first, second)
    if not seeds:
        return None
    return np.array([[first[task][seed] - second[task][seed] for seed in seeds] for task in tasks])


def shared(first: ByTask, second: ByTask) -> tuple[list[str], list[int | None]]:
    """Return the tasks that both have, and the seeds that both have of all of these; no seeds where there are no tasks."""
    tasks = sorted(first.keys() & second.keys())
    seeds = set.intersection(*(first[task].keys() & second[task].keys() for task in tasks)) if tasks else set[int | None]()
    return tasks, sorted(seeds, key=str)


def baseline_of(results: Results) -> Group | None:
    """Return what the others are compared to: lora, or where it was not adapted, the first that was; None of nothing."""
    return next((group for group in results.adapted if group.label == BASELINE), next(iter(results.adapted), None))


def compare_to(base: Group | None, results: Results) -> Compared:
    """Compare every other adapted method to one of them; there is nothing to compare without it."""
    return {group.label: compare(group, base) for group in results.adapted if base and group is not base}


def compare_all(results: Results) -> Compared:
    """Compare every other adapted method to the baseline."""
    return compare_to(baseline_of(results), results)


def differences_table(results: Results, *, against: str | None = None, labels: Sequence[str] = (ALL,)) -> Table:
    """Tabulate the differences of methods to one of them, adapted; what is missing is said under the table.

    Args:
        results: ours.
        against: label of the method that the others are compared to; the baseline if none is named.
        labels: of the others; `all` is every one that was adapted.

    Raises:
        ParamsError: if a label is of no method with adapted scores, where there are scores at all.
    """
    adapted = {group.label: group for group in results.adapted}
    baseline = baseline_of(results)
    if baseline is None:
        return _table(results, against or BASELINE, [], [NO_SCORES])
    against = against or baseline.label
    against, *named = [_called(name, adapted) for name in (against, *(name for name in labels if name != ALL))]
    chosen = [label for label in adapted if label != against] if ALL in labels else list(dict.fromkeys(named))
    compared = {label: compare(adapted[label], adapted[against]) for label in chosen}
    rows = [_row(label, difference) for label, difference in compared.items() if difference]
    notes = [
        f"Each task's score less that of {against} with the same seed; mean over tasks and seeds.",
        *interval_notes(compared),
        *(["Chance of no gain: share of the resamples whose mean is 0 or less."] if any(map(_has_interval, rows)) else []),
        *(adapted[label].note for label in (against, *chosen) if adapted[label].note),
        *apart_notes(compared, against),
    ]
    return _table(results, against, rows, notes)


def _called(name: str, labels: Iterable[str]) -> str:
    """The label that a name means, of those with scores."""
    if label := label_called(name, labels):
        return label
    raise ParamsError(unknown("method", name, labels))


def interval_notes(compared: Compared) -> list[str]:
    """Say what the intervals of these differences are of, and what they do not cover."""
    differences = [difference for difference in compared.values() if difference]
    lines = []
    if any(difference.has_interval for difference in differences):
        lines.append(f"Interval: {RESAMPLES:,} resamples of tasks, and of seeds for all tasks alike (paired bootstrap).")
    seeds = sorted({difference.seeds for difference in differences if difference.has_interval})
    if seeds and seeds[0] == 1:
        lines.append("Of one seed it is of tasks alone: how much another seed would change is not in it.")
    elif seeds and seeds[0] < FEWEST_SEEDS:
        lines.append("Of two seeds it is of tasks above all: how much another seed would change is hardly in it.")
    if not all(difference.has_interval for difference in differences):
        lines.append(f"Of fewer than {FEWEST_TASKS} tasks there is no interval.")
    return lines


def apart_notes(compared: Compared, against: str) -> list[str]:
    """Name what shares nothing with what it would be compared to, in a line if there is anything."""
    apart = [label for label, difference in compared.items() if difference is None]
    return [f"No task and seed in common with {against}: {', '.join(apart)}."] if apart else []


def _has_interval(row: Sequence[str]) -> bool:
    return row[4] != MISSING


def _table(results: Results, against: str, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> Table:
    columns = ("tasks", "seeds", f"adapted\n{results.metric_name}", f"{LEVEL:.0%}\ninterval", "chance of\nno gain", "verdict")
    return Table(f"Differences to {against}", ("method", *columns), rows, notes)


def _row(label: str, difference: Difference) -> list[str]:
    counts = [str(difference.tasks), str(difference.seeds)]
    return [label, *counts, difference.shown_mean, difference.ends, difference.no_gain, difference.verdict]
