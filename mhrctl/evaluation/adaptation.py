"""Tasks are adapted to in one batch, each validated at its own cadence and with its own best step; one that is over leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.config.sections import AdaptParams
from mhrctl.data.batches import GroupedOrder, RunBatches
from mhrctl.data.shots import TaskShots
from mhrctl.errors import DivergedError, listed
from mhrctl.evaluation.metrics import choices_to_score, references_of, score_all
from mhrctl.evaluation.prediction import Generation, answer, of_runs, own_rows, sample_losses
from mhrctl.tracking.by_task import ByTask
from mhrctl.training.checkpoint import Checkpoint, previous, resume_from, save_checkpoint
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.objective import objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, rate_settings, select_runs, trained_parameters
from mhrctl.training.selection import BestSteps


@dataclass(frozen=True)
class Saved:
    """Where the checkpoints of an adaptation are.

    Attributes:
        path: of the last.
        key: identifies the adaptation.
    """

    path: Path
    key: str


@dataclass(frozen=True)
class Bench:
    """What the batches of an adaptation have in common.

    Attributes:
        name: the stage and the cell.
        backbone: frozen, with the slots of the adapters.
        tokenizer: of the backbone.
        params: the cell's resolved section.
        seed: of the cell.
        execution: how to train.
        report: takes the validation scores.
    """

    name: str
    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    params: AdaptParams
    seed: int
    execution: Execution
    report: ByTask


class Adaptation:
    """Several tasks adapted in one batch, each with its own parameters, clipping and best step; one that is over leaves it.

    Attributes:
        best: the best step of each task so far.
        taken: steps taken.
        validated: the steps after which tasks were validated.
        curves: (task, step, validation score).
        was_over: whether an earlier command has finished it.
    """

    _tasks: list[int]
    _adapter: Adapter
    _parameters: dict[str, nn.Parameter]
    _optimizer: Optimizer

    def __init__(self, bench: Bench, adapter: Adapter, shots: Sequence[TaskShots]) -> None:
        params = bench.params
        self._bench, self._execution, self._params, self._shots = bench, bench.execution, params, shots
        self._objective = objective_of(params)
        self._cadence = [_cadence(task, params) for task in shots]
        self._form(list(range(len(shots))), adapter)
        self.best = BestSteps(self._parameters, runs=len(shots), patience=params.patience)
        self.taken = 0
        self.validated: set[int] = set()
        self.curves: list[tuple[str, int, float]] = []
        self.was_over = False
        self._candidates: dict[str, list[float]] = {}

    def undecided(self) -> set[str]:
        """Return the tasks with several steps to choose from whose scores never differed: the first was kept."""
        return {task for task, scores in self._candidates.items() if len(scores) > 1 and len(set(scores)) == 1}

    def note(self, step: int) -> str:
        """Say what the tasks have come to, after a step at which some were validated; nothing after another."""
        if step not in self.validated:
            return ""
        mean = self.best.scores.mean().item()
        return f"validation loss {-mean:.3g}" if self._params.select == "loss" else f"validation {mean:.1f}"

    def run(self) -> Iterator[int]:
        """Train, validating each task at step 0 and at its cadence; yields the steps taken.

        A task that is over leaves the batch. The others go on with their own parameters, optimizer state and data, and the
        schedule of all steps, as each would alone; only random numbers (dropout, sampled routing) are the batch's.
        """
        if not self.curves:
            self._validate(0, self._tasks)
        while self.taken < self._params.steps and (left := [task for task in self._tasks if not self.best.over(task)]):
            if left != self._tasks:
                self._keep_only(left)
            yield from self._until_one_is_over()

    def save(self, saved: Saved, *, over: bool = False) -> None:
        """Write a checkpoint; of an adaptation that is over, what it has come to alone."""
        state = {"tasks": [] if over else self._tasks, "curves": self.curves, "candidates": self._candidates}
        save_checkpoint(
            saved.path,
            step=self.taken,
            key=saved.key,
            parameters={} if over else self._parameters,
            optimizer=self._optimizer,
            log=[state],
            best=self.best,
        )
        if over:
            previous(saved.path).unlink(missing_ok=True)

    def go_to(self, saved: Saved) -> None:
        """Go to the last checkpoint, if there is one."""
        begin, every = self._adapter, self._tasks

        def fill(kept: Checkpoint) -> None:
            tasks = kept.log[0]["tasks"]
            self._form(tasks or every, begin.select(tasks or every))
            parameters = self._parameters if tasks else {}
            kept.fill(parameters, self.best)
            kept.fill_optimizer(parameters, self._optimizer)

        kept = resume_from(saved.path, key=saved.key, fill=fill, warn=self._execution.warn)
        if kept is None:
            if self._adapter is not begin:  # a damaged one had other tasks
                self._form(every, begin)
            return
        state = kept.log[0]
        self._tasks, self.taken, self._candidates = state["tasks"], kept.step, state["candidates"]
        self.was_over = not self._tasks
        self.curves = [(name, step, score) for name, step, score in state["curves"]]
        for _, step, score in self.curves:
            self._bench.report.remember(step, score)

    def _form(self, tasks: list[int], adapter: Adapter) -> None:
        """Form the batch of some tasks, each with its run of an adapter, and a new optimizer."""
        shots = [self._shots[task] for task in tasks]
        self._tasks, self._adapter = tasks, adapter
        self._model = self._execution.adapted(self._bench.backbone, adapter)
        self._parameters = trained_parameters(adapter)
        self._optimizer = optimizer_of(adapter, self._params, fused=self._execution.speed.fused)
        adapter.constrain(self._optimizer)
        self._batches = RunBatches(
            [task.train for task in shots],
            [GroupedOrder(task.groups, f"{self._bench.seed}/{task.name}") for task in shots],
            self._params.batch_size,
            with_choices=self._objective.reads_choices,
        )

    def _keep_only(self, left: list[int]) -> None:
        """Form the batch anew of some of its tasks, as they are."""
        rows, optimizer = self._rows(left), self._optimizer
        self._form(left, self._adapter.select(rows))
        select_runs(optimizer, self._optimizer, rows)

    def _rows(self, tasks: Sequence[int]) -> list[int]:
        """Where tasks are in the batch."""
        return [self._tasks.index(task) for task in tasks]

    def _until_one_is_over(self) -> Iterator[int]:
        params = self._params
        steps = fit(
            self._model,
            self._optimizer,
            batches=self._batches,
            objective=self._adapter.objective(self._objective),
            clip=lambda: clip_runs(list(self._parameters.values()), params.clip_norm),
            accelerator=self._execution.accelerator,
            schedule=Schedule(params.steps, params.warmup, self._bench.seed, params.accumulation, self.taken),
            training=Training(self._bench.name, "adapt", [self._shots[task].name for task in self._tasks]),
        )
        for step in steps:
            self.taken = step.number
            if due := self._due(step.number):
                step.require_finite()
                self._validate(step.number, due)
                self._model.train()
            yield step.number
            if any(self.best.over(task) for task in due):
                return

    def _due(self, step: int) -> list[int]:
        """The tasks that are validated at a step: those whose cadence meets it; at the end all, if the last step counts.

        In epochs, as in the paper, it does not. A task for which nothing else could be kept is validated then all the same.
        """
        due = [task for task in self._tasks if step % self._cadence[task] == 0]
        if step < self._params.steps:
            return due
        if self._params.evaluate_unit == "steps" and self._params.keep_last:
            return self._tasks
        return [task for task in self._tasks if task in due or self.best.scores[task] == -torch.inf]

    def _validate(self, step: int, tasks: list[int]) -> None:
        try:
            scores = self._scores(tasks)
        except DivergedError as error:
            rates = " or ".join(f"adapt.{name}" for name in rate_settings(self._optimizer))
            todo = f"lower {rates}" if step else "look at the backbone and at what adaptation starts from"
            raise DivergedError(f"{self._bench.name}: {error} after step {step}; {todo}; nothing was written") from None
        by_task = {self._shots[task].name: round(score, 4) for task, score in zip(tasks, scores, strict=True)}
        self.curves += [(name, step, score) for name, score in by_task.items()]
        self._bench.report(step, by_task)
        self.validated.add(step)
        if step or self._params.keep_start or not self._params.steps:
            self.best.record(tasks, scores, self._parameters, self._rows(tasks), step=step)
            for task, score in zip(tasks, scores, strict=True):
                self._candidates.setdefault(self._shots[task].name, []).append(score)

    def _scores(self, tasks: list[int]) -> list[float]:
        """The validation scores of some tasks."""
        shots = [self._shots[task] for task in tasks]
        samples = [task.validation for task in shots]
        device = self._execution.accelerator.device
        model = of_runs(self._model, self._rows(tasks))
        if self._params.select == "loss":
            losses = sample_losses(model, samples, own_rows(len(samples)), objective=self._objective, device=device)
            if bad := [task.name for task, loss in zip(shots, losses, strict=True) if not math.isfinite(loss)]:
                raise DivergedError(f"the validation loss of {listed(bad)} is not finite")
            return [-loss for loss in losses]
        answers = answer(
            model,
            self._bench.tokenizer,
            samples,
            [choices_to_score(task.metric, task.choices) for task in shots],
            generation=Generation(self._params.beams, self._params.max_new_tokens, self._params.length_norm),
            device=device,
            names=[task.name for task in shots],
        )
        means = []
        for task, said in zip(shots, answers, strict=True):
            references = references_of([[text] for text in task.references], task.choices, task.rouge_tokenizer)
            scores = score_all(task.metric, said, references)
            means.append(sum(scores) / len(scores))
        return means


def _cadence(task: TaskShots, params: AdaptParams) -> int:
    """Steps between a task's validations."""
    if params.evaluate_unit == "steps":
        return params.evaluate_every
    whole = max(1, len(task.groups) // (params.batch_size * params.accumulation))
    return params.evaluate_every * params.epoch_steps.get(task.name, whole)
