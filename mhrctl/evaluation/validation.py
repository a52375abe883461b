"""Training tasks are validated by the loss of each on the first of its validation examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.examples import Examples, Sample
from mhrctl.errors import DataError, DivergedError, listed
from mhrctl.evaluation.prediction import own_rows, sample_losses
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective

VALIDATED_TASKS = 16
"""Tasks in a validation batch: a matter of memory, not of results."""
DIGITS = 5
"""Of losses in files."""


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
        data_sets: {data set: names of its tasks} of those that have an adapter of their own; none if all tasks share one.
        objective: the loss.
        execution: how to compute.
    """

    backbone: PreTrainedModel
    names: Sequence[str]
    samples: Mapping[int, Sequence[Sample]]
    data_sets: Mapping[str, Sequence[str]]
    objective: Objective
    execution: Execution

    def require_samples(self) -> None:
        """Check that every adapter can be validated.

        Raises:
            DataError: if there are no samples of a data set with an adapter of its own, or none at all.
        """
        sampled = {self.names[task] for task in self.samples}
        bare = [name for name, tasks in self.data_sets.items() if sampled.isdisjoint(tasks)]
        if bare or not sampled:
            of = listed(bare) if bare else "any training task"
            raise DataError(
                f"validate_examples: there are none of {of}; prepare more of its examples, or leave out validate_every and keep"
            )

    def losses(self, adapter: Adapter, data_sets: Sequence[str] = ()) -> dict[str, float]:
        """Return {task: its loss}.

        Args:
            adapter: the one that all tasks share, or with a run for each of some data sets.
            data_sets: these; tasks of others are left out.

        Raises:
            DivergedError: if one is not finite; names the tasks.
        """
        runs = {task: run for run, name in enumerate(data_sets) for task in self.data_sets[name]}
        tasks = [task for task in self.samples if not data_sets or self.names[task] in runs]
        losses: dict[str, float] = {}
        for first in range(0, len(tasks), VALIDATED_TASKS):
            part = tasks[first : first + VALIDATED_TASKS]
            chosen = adapter.select([runs[self.names[task]] for task in part]) if data_sets else adapter
            values = sample_losses(
                self.execution.adapted(self.backbone, chosen),
                [self.samples[task] for task in part],
                own_rows(len(part)) if data_sets else [part],
                objective=self.objective,
                device=self.execution.accelerator.device,
            )
            losses |= {self.names[task]: value for task, value in zip(part, values, strict=True)}
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise DivergedError(f"the validation loss of {listed(bad)} is not finite")
        return {name: round(value, DIGITS) for name, value in losses.items()}

    def means(self, losses: Mapping[str, float], data_sets: Sequence[str] = ()) -> list[float]:
        """Return the mean of the losses of each data set's tasks, or of all tasks where they share an adapter."""
        groups = [self.data_sets[name] for name in data_sets] or [list(losses)]
        return [mean_loss(losses[task] for task in group if task in losses) for group in groups]


def mean_loss(losses: Iterable[float]) -> float:
    """Return the mean over tasks as logs have it, by which steps are compared."""
    return round(fmean(losses), DIGITS)
