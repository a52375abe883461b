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

from mhrctl.adapters.files import Pool
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.config.cells import Cell
from mhrctl.config.options import HubOptions
from mhrctl.config.sections import AdaptParams
from mhrctl.data.examples import Sample
from mhrctl.data.shots import TaskShots
from mhrctl.errors import ParamsError, listed
from mhrctl.evaluation.composing import compose
from mhrctl.evaluation.prediction import sample_losses
from mhrctl.models.attach import attach
from mhrctl.models.precision import set_precision
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.start import Soup, candidates, soup_by_inputs

TOGETHER = 32
"""Adapters that are read and tried at a time: a matter of memory, not of results."""
NAMED = 5
"""Test tasks that a message names."""


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


def halve(
    losses: Callable[[list[int], range], Sequence[float]],
    *,
    candidates: int,
    examples: int,
    keep: int,
    first: int | None = None,
) -> Halving:
    """Find the candidates with the least loss.

    Args:
        losses: gives the summed loss of some candidates on some examples.
        candidates: how many there are; of equals the earlier is better.
        examples: how many there are.
        keep: how many to find, at least.
        first: examples that all are tried on; None for as few as leave `keep` when all examples were seen.
    """
    rounds = max(0, math.ceil(math.log2(candidates / keep)))
    left, totals, seen, spent = list(range(candidates)), [0.0] * candidates, 0, 0
    until = max(1, min(first or examples >> rounds, examples))
    while seen < examples:
        for candidate, loss in zip(left, losses(left, range(seen, until)), strict=True):
            totals[candidate] += loss
        spent += len(left) * (until - seen)
        seen, until = until, min(2 * until, examples)
        left = sorted(left, key=lambda candidate: (totals[candidate], candidate))[: max(keep, -(-len(left) // 2))]
    best = left[:keep]
    return Halving(best, [totals[candidate] / examples for candidate in best], spent, candidates * examples)


@dataclass(frozen=True)
class Tried:
    """Adapters of a pool are tried on samples.

    Attributes:
        pool: the adapters.
        backbone: frozen, with slots or without.
        objective: the loss.
        execution: where to run the backbone.
        rows: of a batch, where there are fewer adapters: each then reads several samples at a time.
    """

    pool: Pool
    backbone: PreTrainedModel
    objective: Objective
    execution: Execution
    rows: int = 1

    def losses(self, runs: Sequence[int], samples: Sequence[Sample]) -> list[float]:
        """Return the summed losses of some adapters on some samples."""
        sums: list[float] = []
        for first in range(0, len(runs), TOGETHER):
            adapter = self.pool.select(runs[first : first + TOGETHER])
            attach(self.backbone, adapter)
            groups = min(len(samples), max(1, self.rows // adapter.runs))
            parts = [samples[place::groups] for place in range(groups)]
            means = sample_losses(
                self.execution.adapted(self.backbone, adapter),
                parts * adapter.runs,
                [[0] * groups] * adapter.runs,
                objective=self.objective,
                device=self.execution.accelerator.device,
            )
            totals = [mean * len(part) for mean, part in zip(means, parts * adapter.runs, strict=True)]
            sums += [sum(totals[place : place + groups]) for place in range(0, len(totals), groups)]
        return sums

    def best(self, places: Sequence[int], samples: Sequence[Sample], *, keep: int) -> Halving:
        """Find by successive halving the adapters at some places of the pool that lose the least on samples.

        Args:
            places: of the candidates; of equals the earlier is better.
            samples: what they are tried on.
            keep: how many to find, at least.

        Returns:
            What it has come to, with places of the pool.
        """

        def losses(left: list[int], part: range) -> list[float]:
            return self.losses([places[candidate] for candidate in left], samples[part.start : part.stop])

        halving = halve(losses, candidates=len(places), examples=len(samples), keep=keep)
        return replace(halving, best=[places[candidate] for candidate in halving.best])


def choose_soup(
    cell: Cell,
    params: AdaptParams,
    start: Path,
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
        start: output of the pre-training, the pool.
        names: of its adapters.
        shots: of the test tasks.
        backbone: frozen, with slots or without.
        prepared: output of the prepare stage.
        index: output of the index stage.
        root: what a relative folder of the index's encoder is relative to.
        execution: where to run the backbone.

    Raises:
        ParamsError: if the inputs choose, and there is no index, or names do, and there is no adapter of one.
    """
    set_precision(backbone, params.precision)
    if params.soup_by == "inputs":
        soup = soup_by_inputs(cell.row, params, start, names, shots, prepared, index, root, str(execution.accelerator.device))
    elif params.soup_by == "name":
        soup = _by_name(names, shots)
    else:
        soup = _by_loss(params, start / ADAPTERS, names, shots, backbone, execution)
    if cell.row.merge != "search":
        return soup
    options, objective = HubOptions.model_validate(params.options), objective_of(params)
    weights = compose(
        soup, options, start / ADAPTERS, shots, backbone, seed=cell.seed, objective=objective, execution=execution
    )
    return replace(soup, weights=weights)


def soup_table(soup: Soup, params: AdaptParams) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows of what was chosen, with the weights if they were searched for."""
    number = {"inputs": ["cosine"], "loss": ["loss"], "name": []}[params.soup_by]
    header = ["task", "training_task", *number]
    if not soup.weights:
        return header, list(soup.notes)
    weights = (round(weight, 4) for of_task in soup.weights for weight in of_task)
    return [*header, "weight"], [(*note, weight) for note, weight in zip(soup.notes, weights, strict=True)]


def _by_name(names: Sequence[str], shots: Sequence[TaskShots]) -> Soup:
    if missing := [task.name for task in shots if task.name not in names]:
        raise ParamsError(f"adapt.soup_by name: the pool has no adapter that is called {listed(missing, NAMED)}")
    return Soup([[names.index(task.name)] for task in shots], [(task.name, task.name) for task in shots])


def _by_loss(
    params: AdaptParams,
    file: Path,
    names: Sequence[str],
    shots: Sequence[TaskShots],
    backbone: PreTrainedModel,
    execution: Execution,
) -> Soup:
    tried, soup = Tried(Pool(file), backbone, objective_of(params), execution), Soup([], [])
    with execution.track("choose", len(shots)) as bar:
        for task in shots:
            places = candidates(params, names, task.name)
            chosen = tried.best(places, task.train, keep=min(params.soup_size, len(places)))
            soup.groups.append(chosen.best)
            of_task = zip(chosen.best, chosen.losses, strict=True)
            soup.notes.extend((task.name, names[place], round(loss, 4)) for place, loss in of_task)
            soup.evaluations[task.name] = (chosen.spent, chosen.exhaustive)
            bar.advance(note=task.name)
    return soup
