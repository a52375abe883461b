"""Adapters of a pool are chosen for a task by their loss on its shots, by successive halving.

All are tried on a few examples; the better half is tried on as many again, and so on, until all examples were seen. So most
of the effort goes to what is good (as LORAUTER chooses a task's adapter, arXiv 2601.21795; successive halving is of
arXiv 1502.07943).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from mhrctl.adapters.files import load_adapter
from mhrctl.config.cells import Cell
from mhrctl.config.methods import HubOptions
from mhrctl.config.sections import AdaptParams
from mhrctl.data.examples import Sample
from mhrctl.data.shots import TaskShots
from mhrctl.evaluation.composing import compose
from mhrctl.evaluation.prediction import own_rows, sample_losses
from mhrctl.models.attach import attach
from mhrctl.models.precision import set_precision
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.start import Soup, soup_of

TOGETHER = 32
"""Adapters that are read and tried at a time: a matter of memory, not of results."""


@dataclass(frozen=True)
class Halving:
    """This is what successive halving has come to.

    Attributes:
        best: places of the candidates that are left, the best first.
        losses: the mean loss of each of them over all examples.
        spent: evaluations of a candidate on an example.
        exhaustive: evaluations of all candidates on all examples.
    """

    best: list[int]
    losses: list[float]
    spent: int
    exhaustive: int


def halve(losses: Callable[[list[int], range], Sequence[float]], *, candidates: int, examples: int, keep: int) -> Halving:
    """Find the candidates with the least loss.

    Args:
        losses: gives the summed loss of some candidates on some examples.
        candidates: how many there are; of equals the earlier is better.
        examples: how many there are.
        keep: how many to find, at least.
    """
    rounds = max(0, math.ceil(math.log2(candidates / keep)))
    left, totals, seen, spent = list(range(candidates)), [0.0] * candidates, 0, 0
    until = max(1, examples >> rounds)
    while seen < examples:
        for candidate, loss in zip(left, losses(left, range(seen, until)), strict=True):
            totals[candidate] += loss
        spent += len(left) * (until - seen)
        seen, until = until, min(2 * until, examples)
        left = sorted(left, key=lambda candidate: (totals[candidate], candidate))[: max(keep, -(-len(left) // 2))]
    best = left[:keep]
    return Halving(best, [totals[candidate] / examples for candidate in best], spent, candidates * examples)


def choose_soup(
    cell: Cell,
    params: AdaptParams,
    file: Path,
    names: Sequence[str],
    shots: Sequence[TaskShots],
    backbone: PreTrainedModel,
    *,
    prepared: Path,
    index: Path | None,
    root: Path,
    execution: Execution,
) -> Soup:
    """Choose for each test task the adapters of a pool that become one.

    Args:
        cell: which is adapted.
        params: the cell's resolved section.
        file: of the pool.
        names: of its adapters.
        shots: of the test tasks.
        backbone: frozen, with slots or without.
        prepared: output of the prepare stage.
        index: output of the index stage.
        root: what a relative folder of the index's encoder is relative to.
        execution: where to run the backbone.

    Raises:
        ParamsError: if the inputs choose, and there is no index.
    """
    set_precision(backbone, params.precision)
    if params.soup_by == "inputs":
        soup = soup_of(cell.row, params, names, shots, prepared, index, root, str(execution.accelerator.device))
    else:
        soup = _by_loss(params, file, names, shots, backbone, execution)
    if cell.row.merge != "search":
        return soup
    options, objective = HubOptions.model_validate(params.options), objective_of(params)
    weights = compose(soup, options, file, shots, backbone, seed=cell.seed, objective=objective, execution=execution)
    return replace(soup, weights=weights)


def soup_table(soup: Soup, params: AdaptParams) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows of what was chosen, with the weights if they were searched for."""
    header = ["task", "training_task", "cosine" if params.soup_by == "inputs" else "loss"]
    if not soup.weights:
        return header, list(soup.notes)
    weights = (round(weight, 4) for of_task in soup.weights for weight in of_task)
    return [*header, "weight"], [(*note, weight) for note, weight in zip(soup.notes, weights, strict=True)]


def _by_loss(
    params: AdaptParams,
    file: Path,
    names: Sequence[str],
    shots: Sequence[TaskShots],
    backbone: PreTrainedModel,
    execution: Execution,
) -> Soup:
    objective, soup = objective_of(params), Soup([], [])
    with execution.track("choose", len(shots)) as bar:
        for task in shots:

            def losses(left: list[int], part: range, samples: Sequence[Sample] = task.train) -> list[float]:
                return _summed(file, left, samples[part.start : part.stop], backbone, objective, execution)

            size = min(params.soup_size, len(names))
            chosen = halve(losses, candidates=len(names), examples=len(task.train), keep=size)
            soup.groups.append(chosen.best)
            of_task = zip(chosen.best, chosen.losses, strict=True)
            soup.notes.extend((task.name, names[place], round(loss, 4)) for place, loss in of_task)
            soup.evaluations[task.name] = (chosen.spent, chosen.exhaustive)
            bar.advance(note=task.name)
    return soup


def _summed(
    file: Path,
    runs: Sequence[int],
    samples: Sequence[Sample],
    backbone: PreTrainedModel,
    objective: Objective,
    execution: Execution,
) -> list[float]:
    """The summed losses of some adapters on some samples."""
    sums: list[float] = []
    for first in range(0, len(runs), TOGETHER):
        adapter = load_adapter(file, runs[first : first + TOGETHER])
        attach(backbone, adapter)
        model = execution.adapted(backbone, adapter)
        means = sample_losses(
            model,
            [samples] * adapter.runs,
            own_rows(adapter.runs),
            objective=objective,
            device=execution.accelerator.device,
        )
        sums += [mean * len(samples) for mean in means]
    return sums
