"""Training tasks are validated by the loss of each on the first of its validation examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.examples import Examples, Sample
from mhrctl.errors import DivergedError, listed
from mhrctl.evaluation.prediction import own_rows, sample_losses
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective

VALIDATED_TASKS = 16
"""Tasks in a validation batch: a matter of memory, not of results."""


def first_examples(examples: Examples, count: int) -> dict[int, list[Sample]]:
    """Return {task: the first `count` of its validation examples}, of the tasks that have any."""
    by_task: dict[int, list[Sample]] = {}
    for sample in examples.of(split="validation").scored() if count else []:
        samples = by_task.setdefault(sample.task, [])
        if len(samples) < count:
            samples.append(sample)
    return {task: by_task[task] for task in sorted(by_task)}


@dataclass(frozen=True)
class Validation:
    """A validation measures adapters on training tasks.

    Attributes:
        backbone: frozen, with the slots of the adapters.
        names: of all training tasks; a task is a place in them.
        samples: {task: those that its loss is the mean over}.
        objective: the loss.
        execution: how to compute.
    """

    backbone: PreTrainedModel
    names: Sequence[str]
    samples: Mapping[int, Sequence[Sample]]
    objective: Objective
    execution: Execution

    def losses(self, adapter: Adapter, owners: Mapping[int, int] | None = None) -> dict[str, float]:
        """Return {task: its loss}.

        Args:
            adapter: of one run that all tasks share, or of several.
            owners: {task: the run whose adapter is the task's alone}; other tasks are left out. None if all share one.

        Raises:
            DivergedError: if one is not finite; names the tasks.
        """
        tasks = [task for task in self.samples if owners is None or task in owners]
        losses: dict[str, float] = {}
        for first in range(0, len(tasks), VALIDATED_TASKS):
            part = tasks[first : first + VALIDATED_TASKS]
            chosen = adapter if owners is None else adapter.select([owners[task] for task in part])
            values = sample_losses(
                self.execution.adapted(self.backbone, chosen),
                [self.samples[task] for task in part],
                [part] if owners is None else own_rows(len(part)),
                objective=self.objective,
                device=self.execution.accelerator.device,
            )
            losses |= {self.names[task]: value for task, value in zip(part, values, strict=True)}
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise DivergedError(f"the validation loss of {listed(bad)} is not finite")
        return {name: round(value, 5) for name, value in losses.items()}
