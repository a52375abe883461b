"""A table asks of adapters that were trained apart, and of methods that train on all tasks together, which to use.

Scores are relative to those of the test task's own adapter, by what of the test task was used (the regimes of LORAUTER,
arXiv 2601.21795): its own adapter among those of the pool, its examples alone, or nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.evaluation.scores import LeftOut, Phase
from mhrctl.report.aggregates import FEWEST_TASKS
from mhrctl.report.bootstrap import LEVEL, RESAMPLES, paired_bootstrap
from mhrctl.report.differences import ByTask, shared
from mhrctl.report.results import MISSING, NO_SCORES, Group, Results
from mhrctl.report.table import Table, Value
from mhrctl.report.tables.beside import notes

Uses = Literal["adapter", "examples", "nothing"]
"""What of a test task a method has used."""
COLUMNS: Mapping[Uses, str] = {"adapter": "its own\nadapter", "examples": "its\nexamples", "nothing": "nothing\nof it"}
MADE_WITH: Mapping[LeftOut, Uses] = {"nothing": "adapter", "adapter": "examples", "examples": "nothing"}
"""{`adapt.leave_out`: what of a task is left to make an adapter of a pool with}."""
NO_OWN = (
    "Nothing to be relative to: it takes an `adapter_soup` with `adapt.soup_by: name`, of a pool that has adapters of the test"
    " tasks (pretrain.test_tasks)."
)


@dataclass(frozen=True)
class _Entry:
    """A method's scores in one column.

    Attributes:
        row: label of the row that it stands in.
        instead: label of a row of its own, if another has taken that place: of two variants that use the same of a task.
        uses: of the test task.
        scores: by task and seed.
    """

    row: str
    instead: str
    uses: Uses
    scores: ByTask


def pool_table(results: Results, expected: Sequence[str]) -> Table:
    """Tabulate what becomes of a pool, and what of training together, relative to each task's own adapter.

    Args:
        results: ours.
        expected: the grid's cells; those without scores are named under the table.
    """
    yardstick = next((group for group in results.methods if _is_own(group)), None)
    columns = ("method", *COLUMNS.values(), "seeds")
    if yardstick is None:
        return Table("Apart or together", columns, [], [NO_OWN if results.cells else NO_SCORES])
    ones, zeros = yardstick.by_task("zero_shot"), set[str]()
    by_row: dict[str, dict[Uses, NDArray[np.float64]]] = {}
    for entry in _entries(results, yardstick):
        ratios, without = _relative(entry.scores, ones)
        zeros |= without
        if ratios.size:
            row = entry.instead if entry.uses in by_row.get(entry.row, {}) else entry.row
            by_row.setdefault(row, {})[entry.uses] = ratios
    rows = [
        [row, *(_shown(by_uses.get(uses)) for uses in COLUMNS), str(max(each.shape[1] for each in by_uses.values()))]
        for row, by_uses in by_row.items()
    ]
    said = [*_how(yardstick, zeros), *notes(results, expected)]
    return Table("Apart or together", columns, rows, said)


def _how(yardstick: Group, zeros: Collection[str]) -> Iterator[str]:
    """Say what the numbers are, and which tasks are left out."""
    intervals = f", with {LEVEL:.0%} intervals by {RESAMPLES:,} resamples of both"
    enough, score = len(yardstick.by_task("zero_shot")) >= FEWEST_TASKS, yardstick.score("zero_shot")
    mean = f"{score.mean:.1f}" if score else MISSING
    yield (
        f"Scores in percent of those of the task's own adapter ({yardstick.label}: {mean});"
        f" the mean over tasks and seeds{intervals if enough else ''}."
    )
    made = "as a pool's adapters become one or are mixed, and as training together leaves off"
    yield f"Made: {made}; tuned: trained on the shots."
    if zeros:
        yield f"Left out, since its own adapter scores nothing: {', '.join(sorted(zeros))}."


def _is_own(group: Group) -> bool:
    """Whether a group's adapters, before they are tuned, are the test tasks' own."""
    return group.method == "adapter_soup" and group.first.chosen_by == "name"


def _entries(results: Results, yardstick: Group) -> Iterator[_Entry]:
    for group in results.methods:
        if group.method == BACKBONE:
            yield _Entry(BACKBONE, BACKBONE, "nothing", group.by_task("zero_shot"))
        elif group is yardstick:
            yield _Entry("its own, tuned", group.label, "adapter", group.by_task("adapted"))
        elif METHODS[group.method].is_private:
            yield from _of_pool(group)
        else:
            yield from _together(group)


def _of_pool(group: Group) -> Iterator[_Entry]:
    """What becomes of a pool, which variants leave out different things of."""
    made = MADE_WITH[group.first.leave_out]
    yield _Entry(f"{group.method}, made", f"{group.label}, made", made, group.by_task("zero_shot"))
    if METHODS[group.method].trains != "nothing":  # with its shots
        tuned: Uses = "adapter" if made == "adapter" else "examples"
        yield _Entry(f"{group.method}, tuned", f"{group.label}, tuned", tuned, group.by_task("adapted"))


def _together(group: Group) -> Iterator[_Entry]:
    phases: Mapping[Phase, tuple[str, Uses]] = {"zero_shot": ("made", "nothing"), "adapted": ("tuned", "examples")}
    for phase, (how, uses) in phases.items():
        yield _Entry(f"{group.label}, {how}", group.label, uses, group.by_task(phase))


def _relative(scores: ByTask, ones: ByTask) -> tuple[NDArray[np.float64], set[str]]:
    """Scores in percent of others, [tasks, seeds] of those that both have; and the tasks whose others are nothing."""
    tasks, seeds = shared(scores, ones)
    zeros = {task for task in tasks if any(ones[task][seed] == 0 for seed in seeds)}
    ratios = [[100 * scores[task][seed] / ones[task][seed] for seed in seeds] for task in tasks if task not in zeros]
    return np.array(ratios).reshape(len(ratios), len(seeds)), zeros


def _shown(ratios: NDArray[np.float64] | None) -> str:
    if ratios is None:
        return MISSING
    interval = paired_bootstrap(ratios)
    if len(ratios) < FEWEST_TASKS:
        return Value(f"{interval.mean:.1f}", {"": interval.mean})
    text = f"{interval.mean:.1f} ({interval.low:.0f}-{interval.high:.0f})"
    return Value(text, {"": interval.mean, "low": interval.low, "high": interval.high})
