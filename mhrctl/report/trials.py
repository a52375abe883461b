"""A search tries several settings of adaptation: of its trials those are reported that validation chooses.

The authors' script searches for each test task by itself (docs/fidelity.md); one choice for all tasks is the alternative.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from mhrctl.evaluation.scores import PHASES, SCORE, CellMetrics

Choice = Literal["by_task", "overall"]
"""Whether each test task has the trial that is best for it, or all tasks have the one that is best on the mean."""
Trials = Mapping[int, Mapping[str, CellMetrics]]
"""{number: {cell: scores}, one a seed}."""


def choose_trial(cells: Mapping[str, CellMetrics], choice: Choice) -> tuple[Mapping[str, CellMetrics], str]:
    """Choose among cells that differ in seed and trial, by the mean validation score over seeds.

    Only trials with the most seeds can be chosen. Of equal ones, and where there are no validation scores, it is the first.

    Args:
        cells: {name: scores} of all trials.
        choice: for each test task or for all.

    Returns:
        The chosen scores, one cell a seed, and how they were chosen; nothing is said where there is a single trial. With a
        choice for each task the cells are made of several trials: they have no means but those of the tasks' own metrics.
    """
    every: dict[int, dict[str, CellMetrics]] = {}
    for name, cell in sorted(cells.items(), key=lambda item: item[1].trial):
        every.setdefault(cell.trial, {})[name] = cell
    if len(every) == 1:
        return every.popitem()[1], ""
    most = max(every.values(), key=len)
    whole = {number: trial for number, trial in every.items() if _seeds(trial) == _seeds(most)}
    short = "" if len(whole) == len(every) else f", of those with {len(most)} seeds"
    choose = _overall if choice == "overall" else _by_task
    return choose(whole, f"of {len(every)} trials", short)


def _overall(trials: Trials, of_many: str, short: str) -> tuple[Mapping[str, CellMetrics], str]:
    means = {number: _mean([cell.validation for cell in trial.values()]) for number, trial in trials.items()}
    best = _best(means)
    why = f"has the best mean validation score, {means[best]:.1f}" if best in _known(means) else "is the first"
    unknown = "" if _known(means) else "; no trial has validation scores"
    return trials[best], f"{of_many} number {best} {why}{unknown}{short} ({_settings(trials[best])}); for all tasks."


def _by_task(trials: Trials, of_many: str, short: str) -> tuple[Mapping[str, CellMetrics], str]:
    tasks = {task for trial in trials.values() for cell in trial.values() for task in cell.by_task}
    chosen: dict[str, int] = {}
    unknown = 0
    for task in sorted(tasks):
        means = {
            number: _mean([cell.by_task[task].validation if task in cell.by_task else None for cell in trial.values()])
            for number, trial in trials.items()
        }
        chosen[task] = _best(means)
        unknown += not _known(means)
    if unknown == len(tasks):
        return _overall(trials, of_many, short)
    counts = Counter(chosen.values())
    named = ", ".join(f"number {number} ({_settings(trials[number])}) in {counts[number]}" for number in sorted(counts))
    note = f"{of_many} each task has the one with its best mean validation score{short}: {named} of {len(tasks)} tasks"
    note += f"; {unknown} without validation scores have the first." if unknown else "."
    if len(counts) == 1:
        return trials[counts.popitem()[0]], note
    return _composed(trials, chosen), note


def _composed(trials: Trials, chosen: Mapping[str, int]) -> dict[str, CellMetrics]:
    """A cell for each seed, with each task's scores from the trial that was chosen for it."""
    by_seed: dict[int | None, dict[int, CellMetrics]] = {}
    names: dict[int | None, str] = {}
    for number, trial in trials.items():
        for name, cell in trial.items():
            by_seed.setdefault(cell.seed, {})[number] = cell
            names[cell.seed] = re.sub(r"-t\d+(?=-s\d+$)", "", name)
    return {names[seed]: _compose(cells, chosen) for seed, cells in by_seed.items()}


def _compose(cells: Mapping[int, CellMetrics], chosen: Mapping[str, int]) -> CellMetrics:
    by_task = {task: cells[number].by_task[task] for task, number in chosen.items()}
    metrics = {of.metric for of in by_task.values()}
    titles = [SCORE, *metrics] if len(metrics) == 1 else [SCORE]
    means: dict[str, dict[str, float] | None] = {}
    for phase in PHASES:
        mean = _mean([getattr(of, phase) for of in by_task.values()])
        means[phase] = None if mean is None else dict.fromkeys(titles, round(mean, 4))
    first = next(iter(cells.values()))
    validation = _mean([of.validation for of in by_task.values()])
    return first.model_copy(update={"by_task": by_task, "validation": validation, "trial": 0, "settings": {}} | means)


def _seeds(trial: Mapping[str, CellMetrics]) -> set[int | None]:
    return {cell.seed for cell in trial.values()}


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return fmean(known) if known and len(known) == len(scores) else None


def _known(means: Mapping[int, float | None]) -> dict[int, float]:
    return {number: mean for number, mean in means.items() if mean is not None}


def _best(means: Mapping[int, float | None]) -> int:
    """The number of the best mean; of equal ones, and if none is known, the first."""
    known = _known(means)
    return max(known, key=lambda number: known[number]) if known else min(means)


def _settings(trial: Mapping[str, CellMetrics]) -> str:
    settings = next(iter(trial.values())).settings
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "no settings recorded"
