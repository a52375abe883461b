"""A project tells of its cells, outputs, results and routings in these records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhrctl.evaluation.scores import Phase
from mhrctl.tools.states import State

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CellState:
    """This is a cell of the grid, and how far it is.

    Attributes:
        name: such as `mhr-h8-s0`.
        method: a row of the methods table.
        heads: of its routing; 1 where there is none.
        variant: of `grid.variants`; `plain` is the method as it is.
        seed: of everything random in it.
        extra_steps: of further pre-training; such a cell is not adapted.
        stages: {stage, in their order: `missing`, `out of date` or `up to date`}.
    """

    name: str
    method: str
    heads: int
    variant: str
    seed: int
    extra_steps: int
    stages: Mapping[str, State]


@dataclass(frozen=True)
class Output:
    """An output is what a stage has written.

    Attributes:
        stage: of the pipeline.
        cell: whose it is; None of a stage that has no cells.
        folder: that holds it.
        card: how it was made, as its `card.json` has it: settings, hashes of what it was made from, facts, versions.
    """

    stage: str
    cell: str | None
    folder: Path
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A result is what a cell has scored in one phase, in percent.

    Attributes:
        cell: name.
        method: a row of the methods table, or `backbone`.
        heads: of its routing; None of the bare backbone, as its seed.
        variant: of the grid.
        extra_steps: of further pre-training.
        seed: of the cell.
        trial: of a search over settings of adaptation; 0 where nothing is searched.
        phase: `zero_shot` or `adapted`.
        scores: {metric: mean over the test tasks that it is recorded of}, and `score`, each task by its own metric.
        tasks: {test task: its score by its own metric}.
        multi_task: numbers that were trained on all tasks.
        adaptation: numbers that are trained for each new task.
    """

    cell: str
    method: str
    heads: int | None
    variant: str
    extra_steps: int
    seed: int | None
    trial: int
    phase: Phase
    scores: Mapping[str, float]
    tasks: Mapping[str, float]
    multi_task: int
    adaptation: int

    def flat(self) -> dict[str, Any]:
        """Return a row of a table, without the tasks: `pandas.DataFrame(result.flat() for result in project.results())`."""
        row = asdict(self)
        del row["tasks"], row["scores"]
        return {**row, **self.scores}


@dataclass(frozen=True)
class Routing:
    """A routing is how much of each skill tasks take.

    Attributes:
        tasks: n names.
        weights: {part of the model that shares a routing: weights, [n, heads, skills], of which those of a head sum to 1}.
    """

    tasks: list[str]
    weights: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
