"""What a router needs of a pool is made: means of inputs that queries are compared with, and the adapter of each.

For LORAUTER (arXiv 2601.21795) these are of tasks: of the training tasks by their validation examples, and of the test task by
its shots. The adapter of a task is the one with the least loss on them, by successive halving. For LoraRetriever
(arXiv 2402.09997) they are of the adapters' own inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from mhrctl.adapters.files import Pool
from mhrctl.artifacts.names import ADAPTERS, TRAINING_EXAMPLES
from mhrctl.config.cells import Cell
from mhrctl.config.options import TaskRouteOptions
from mhrctl.config.sections import AdaptParams
from mhrctl.data.examples import Examples, Sample
from mhrctl.data.index import Index, encoder_of
from mhrctl.data.routes import Routes, Weighing
from mhrctl.data.samples import read_samples, spread
from mhrctl.data.shots import TaskShots
from mhrctl.data.similarity import Array
from mhrctl.data.table import training_data_sets
from mhrctl.errors import ParamsError
from mhrctl.evaluation.choosing import TOGETHER, Tried, halve
from mhrctl.models.precision import set_precision
from mhrctl.training.execution import Execution
from mhrctl.training.objective import objective_of
from mhrctl.training.start import candidates, open_index

Note = tuple[str, str, str, float | str]
"""A test task, or nothing for all queries; what these are compared with; its adapter; that one's loss, if it chose."""
NOBODY = -1
"""The place of no adapter."""
HEADER = ("queries_of", "compared_with", "adapter", "loss")


@dataclass(frozen=True)
class Choice:
    """A choice is what was found out for a router.

    Attributes:
        routes: all that routing needs but the adapters.
        notes: the adapter of each row, and of a test task those that are others for its queries.
        evaluations: {task: evaluations of an adapter on an example, and how many all would be}.
    """

    routes: Routes
    notes: list[Note]
    evaluations: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class _Tries:
    """A task's examples, on which adapters are tried, each on each once.

    Attributes:
        tried: tries them.
        samples: the examples.
        first: of these, those that all adapters are tried on.
        known: {(adapter, first example, end): summed loss}.
    """

    tried: Tried
    samples: Sequence[Sample]
    first: int | None
    known: dict[tuple[int, int, int], float] = field(default_factory=dict)

    def best(self, places: Sequence[int]) -> tuple[int, float]:
        """Return the best of some adapters, and its mean loss."""

        def losses(left: list[int], part: range) -> list[float]:
            keys = [(places[candidate], part.start, part.stop) for candidate in left]
            if new := [key for key in keys if key not in self.known]:
                sums = self.tried.losses([place for place, _, _ in new], self.samples[part.start : part.stop])
                self.known.update(zip(new, sums, strict=True))
            return [self.known[key] for key in keys]

        chosen = halve(losses, candidates=len(places), examples=len(self.samples), keep=1, first=self.first)
        return places[chosen.best[0]], chosen.losses[0]

    @property
    def spent(self) -> int:
        """Evaluations of an adapter on an example."""
        return sum(end - start for _, start, end in self.known)


def choose_routes(
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
) -> Choice:
    """Find out what a router over a pool needs.

    Args:
        cell: which is adapted.
        params: the cell's resolved section.
        start: output of the pre-training, the pool.
        names: of its adapters.
        shots: of the test tasks.
        backbone: frozen, with slots or without.
        prepared: output of the prepare stage.
        index: output of the index stage, which has the encoder.
        root: what a relative folder of the encoder is relative to.
        execution: where to run the backbone.

    Raises:
        ParamsError: if there is no index, or nothing to compare a query of a test task with.
        DataError: if the inputs of an adapter are not known.
    """
    known, card = open_index(cell.row, index, prepared=prepared, root=root, device=str(execution.accelerator.device))
    by_name = sorted(range(len(names)), key=names.__getitem__)  # so that of equals it is not the order of the pool that chooses
    usable = [by_name, *(sorted(candidates(params, names, task.name), key=names.__getitem__) for task in shots)]
    weighing = Weighing(**cell.row.adapt_options.model_validate(params.options).model_dump(exclude={"examples", "first"}))
    if cell.row.compares == "adapters":
        rows = _by_adapters(known.of_pool(names, read_samples(start, card.params["examples"])), usable)
    else:
        set_precision(backbone, params.precision)
        tried = Tried(Pool(start / ADAPTERS), backbone, objective_of(params), execution, rows=TOGETHER)
        rows = _by_tasks(known, tried, names, usable, shots, prepared=prepared, params=params)
    adapters = np.array(rows.adapters).reshape(len(rows.names), len(usable)).T
    for task, of_task in zip(shots, adapters[1:], strict=True):
        if (of_task == NOBODY).all():
            raise ParamsError(
                f"adapt.leave_out {params.leave_out}: there are no training tasks with validation examples, and so nothing to"
                f" compare the queries of {task.name} with"
            )
    routes = Routes(
        names=rows.names,
        vectors=np.stack(rows.vectors),
        adapters=np.ascontiguousarray(adapters),
        tasks=[task.name for task in shots],
        pool=list(names),
        weighing=weighing,
        encoder=known.encoder,
        encoder_name=encoder_of(card),
    )
    return Choice(routes, rows.notes, rows.evaluations)


@dataclass(frozen=True)
class _Rows:
    """What queries are compared with.

    Attributes:
        names: of the rows.
        vectors: of each.
        adapters: of each, for any query, and for those of each test task.
        notes: as of `Choice`.
        evaluations: as of `Choice`.
    """

    names: list[str] = field(default_factory=list)
    vectors: list[Array] = field(default_factory=list)
    adapters: list[list[int]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)


def _by_adapters(known: Index, usable: Sequence[Sequence[int]]) -> _Rows:
    """A row for each adapter of a pool, by its own inputs."""
    allowed = [set(places) for places in usable]
    adapters = [[place if place in of_task else NOBODY for of_task in allowed] for place in range(len(known.tasks))]
    return _Rows(known.tasks, list(known.vectors), adapters, [("", name, name, "") for name in known.tasks])


def _by_tasks(
    known: Index,
    tried: Tried,
    names: Sequence[str],
    usable: Sequence[Sequence[int]],
    shots: Sequence[TaskShots],
    *,
    prepared: Path,
    params: AdaptParams,
) -> _Rows:
    """A row for each training task, by its validation examples, and one for each test task, which counts for that alone."""
    options, rows = TaskRouteOptions.model_validate(params.options), _Rows()
    tests, every = ["", *(task.name for task in shots)], range(len(usable))
    asked = [(name, prompts, samples, every) for name, prompts, samples in _validation_sets(prepared, options.examples)]
    if params.leave_out != "examples":
        asked += [(task.name, task.prompts, task.train, range(number, number + 1)) for number, task in enumerate(shots, 1)]
    with tried.execution.track("choose", len(asked)) as bar:
        for name, prompts, samples, whose in asked:
            tries, adapters = _Tries(tried, samples, options.first), [NOBODY] * len(usable)
            for number in whose:
                adapter, loss = tries.best(usable[number])
                adapters[number] = adapter
                if number == whose[0] or adapter != adapters[0]:
                    rows.notes.append((tests[number], name, names[adapter], round(loss, 4)))
            rows.names.append(name)
            rows.vectors.append(known.mean(prompts))
            rows.adapters.append(adapters)
            rows.evaluations[name] = tries.spent, len(names) * len(samples)
            bar.advance(note=name)
    return rows


def _validation_sets(prepared: Path, most: int) -> Iterator[tuple[str, list[str], Sequence[Sample]]]:
    """Each training task, or data set, that has validation examples, with their inputs and samples, evenly spread."""
    examples = Examples.read(prepared / TRAINING_EXAMPLES).of(split="validation")
    for name, tasks in training_data_sets(prepared).items():
        of_set = examples.of(tasks=tasks)
        if chosen := spread(len(of_set), most):
            yield name, of_set.take(chosen).column("prompt"), of_set.take(chosen).scored()
