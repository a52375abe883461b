"""Adapters are pre-trained on all training tasks, from a checkpoint if there is one, and the best step can be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter, stack_runs
from mhrctl.artifacts.facts import Kept
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import MixedBatches, Order, RunBatches
from mhrctl.data.examples import Examples
from mhrctl.data.windows import WindowedOrder
from mhrctl.errors import DivergedError, StoppedError, counted
from mhrctl.evaluation.skills import begin_with
from mhrctl.evaluation.validation import Validation, first_examples, mean_loss
from mhrctl.models.adapted import AdaptedModel
from mhrctl.progress import Bar
from mhrctl.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.log import LOG_COLUMNS, counted_on, is_due
from mhrctl.training.loop import Schedule, Step, fit
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, trained_parameters
from mhrctl.training.part import Part, left_by
from mhrctl.training.pauses import Pauses
from mhrctl.training.selection import BestSteps

CHECKPOINT_EVERY = 1000
"""Steps between checkpoints at the most, and however fast they are: a matter of what a killed run has to do again alone."""
ALIGNMENT_COLUMNS = ("shared", "composed")
"""What the log has besides with `align_every`: empty in a line at whose step alignment was not measured."""
VALIDATION_COLUMNS = ("validation_loss",)
"""What it has with `validate_every`, likewise."""


@dataclass(frozen=True)
class Pretraining:
    """This is the pre-training of one cell.

    Attributes:
        backbone: frozen, with the slots of the adapter.
        examples: of all that is trained on.
        data_sets: {name of an adapter of its own: the tasks that it is trained on}, if each has one.
        cell: method, heads and seed.
        params: the cell's resolved section.
        scratch: folder for the checkpoints of a run in progress.
        key: identifies the training, so that no other goes on from its checkpoints.
        execution: how to train; its recorder takes each line of the log.
        trained: on how many tasks, and how much, in words.
        align: measures the alignment of the tasks' gradients, as the log's columns have it; None if it is not measured.
    """

    backbone: PreTrainedModel
    examples: Examples
    data_sets: Mapping[str, Sequence[str]]
    cell: Cell
    params: PretrainParams
    scratch: Path
    key: str
    execution: Execution
    trained: str
    align: Callable[[AdaptedModel], Sequence[float]] | None = None

    @property
    def objective(self) -> Objective:
        """What is minimised, but for what an adapter adds."""
        return objective_of(self.params)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the log."""
        aligned, validated = bool(self.params.align_every), bool(self.params.validate_every)
        return LOG_COLUMNS + ALIGNMENT_COLUMNS * aligned + VALIDATION_COLUMNS * validated

    def _track(self, total: int) -> AbstractContextManager[Bar]:
        examples = self.params.batch_size * self.params.accumulation * self.execution.accelerator.num_processes
        about = f"{counted(total, 'step')} of {counted(examples, 'example')}, {self.execution.accelerator.device}"
        return self.execution.track(f"pretrain {self.cell.name}", total, about=f"{self.trained}, {about}")

    def begin(self, adapter: Adapter, pool: Path) -> list[str]:
        """Make the skills LoRAs of a pool, and return their names."""
        if self.params.pool_by == "useful":
            self.validation.require_samples()
        samples = list(self.validation.samples.values())
        return begin_with(pool, adapter, self.params, samples, self.backbone, seed=self.cell.seed, execution=self.execution)

    def shared(self, adapter: Adapter) -> tuple[list[list[Any]], list[Kept]]:
        """Train one adapter, routed or not, on all tasks in proportion to their examples.

        Returns:
            The rows of the log, and the step that is kept, if it is the best.
        """
        samples = self.examples.of(split="train").all_references()
        seed = f"{self.cell.seed}/extra" if self.cell.extra_steps else self.cell.seed
        batches = MixedBatches(
            samples,
            WindowedOrder(samples, seed, window=self.params.window, balance=self.params.balance),
            self.params.batch_size,
            with_choices=self.objective.reads_choices,
        )
        with self._track(self.params.steps) as bar:
            part = Part(adapter, batches, self.params.steps, checkpoint_path(self.scratch, self.cell.name), self.key)
            return self._train(part, bar, self.params.steps)

    def private(self, adapter: Adapter) -> tuple[list[list[Any]], list[Kept]]:
        """Train an adapter for each data set, some to a batch, the steps divided among them.

        Returns:
            The rows of the log, and the step that is kept of each adapter, if it is its best.
        """
        names, together = list(self.data_sets), self.execution.speed.together
        train = self.examples.of(split="train")
        samples = [train.of(tasks=self.data_sets[name]).all_references() for name in names]
        steps = math.ceil(self.params.steps / len(names))
        trained: list[dict[str, Tensor]] = []
        rows: list[list[Any]] = []
        kept: list[Kept] = []
        total = steps * math.ceil(len(names) / together)
        with self._track(total) as bar:
            for first in range(0, len(names), together):
                runs = list(range(len(names))[first : first + together])
                chosen = adapter.select(runs)
                batches = RunBatches(
                    [samples[run] for run in runs],
                    [Order(len(samples[run]), f"{self.cell.seed}/{names[run]}") for run in runs],
                    self.params.batch_size,
                    with_choices=self.objective.reads_choices,
                )
                checkpoint = checkpoint_path(self.scratch, self.cell.name, first)
                before = rows[-1] if rows else []
                key, data_sets = f"{self.key}/{runs}", names[first : first + together]
                part = Part(chosen, batches, steps, checkpoint, key, before, data_sets)
                of_part, kept_of_part = self._train(part, bar, total)
                rows += [counted_on(row, before) for row in of_part]
                kept += kept_of_part
                trained.append(chosen.state_dict())
        adapter.load_state_dict(stack_runs(trained))
        return rows, kept

    def _train(self, part: Part, bar: Bar, total: int) -> tuple[list[list[Any]], list[Kept]]:
        """Train a part, from its checkpoint if there is one of the same key.

        Args:
            part: it.
            bar: of all parts.
            total: steps of all parts.

        Returns:
            The rows of the log, and the step that is kept of each run, if it is its best.

        Raises:
            StoppedError: if it is asked to stop before the end.
        """
        with self.execution.pausing() as pauses:
            return self._train_with(pauses, part, bar, total)

    def _train_with(self, pauses: Pauses, part: Part, bar: Bar, total: int) -> tuple[list[list[Any]], list[Kept]]:
        params, execution, adapter, steps = self.params, self.execution, part.adapter, part.steps
        accelerator = execution.accelerator
        model = AdaptedModel(self.backbone, adapter, speed=execution.speed)
        optimizer = optimizer_of(adapter, params, fused=execution.speed.fused)
        adapter.constrain(optimizer)
        wrapped, optimizer = execution.prepared(model, optimizer)
        parameters = trained_parameters(adapter)
        best = BestSteps(parameters, dtype=torch.float64) if params.keep == "best" else None
        first, rows = load_checkpoint(
            part.checkpoint,
            key=part.key,
            parameters=parameters,
            optimizer=optimizer,
            best=best,
            warn=execution.warn,
            set_aside=accelerator.is_main_process,
        )
        bar.resume(first)
        saved = [first]  # the steps of the checkpoints that there are
        micro_batches = params.accumulation * accelerator.num_processes
        log = part.log(self.columns, execution.recorder, rows=rows, first=first, micro_batches=micro_batches)
        if best and not steps:  # then there is nothing but the start
            self._validate(part, 0, best, saved)
        for step in self._fit(wrapped, optimizer, part, first, saved):
            note = ""
            log.count(step.number)
            aligned, validated = (is_due(step.number, every, steps) for every in (params.align_every, params.validate_every))
            logs = aligned or validated or is_due(step.number, params.log_every, steps)
            pause = pauses.after(step.number)
            saves = step.number % CHECKPOINT_EVERY == 0 if step.number < steps else self.cell.row.is_private
            saves |= pause.saves
            if logs or saves:
                step.require_finite()
            if logs:
                rates = [group["lr"] for group in optimizer.param_groups]
                loss = accelerator.reduce(step.losses, "mean").mean().item()
                note = f"loss {loss:.3f}"
                with log.row(step.number, loss, rates) as row:  # `item` has waited for the device
                    if self.align:  # by the process that keeps the log, and by those with a part of the weights
                        measures = aligned and (accelerator.is_main_process or execution.sharding is not None)
                        row.extend(self.align(model) if measures else [None] * len(ALIGNMENT_COLUMNS))
                    if params.validate_every:
                        row.append(self._validate(part, step.number, best, saved) if validated else None)
                        wrapped.train()
            if saves and accelerator.is_main_process:
                save_checkpoint(
                    part.checkpoint,
                    step=step.number,
                    key=part.key,
                    parameters=parameters,
                    optimizer=optimizer,
                    log=log.rows,
                    best=best,
                )
                saved.append(step.number)
            bar.advance(note=note)
            if pause.stops:
                raise StoppedError(f"stopped at step {(part.before[0] if part.before else 0) + step.number:,} of {total:,}")
        return log.rows, part.keep(best, uniform_steps=params.uniform_steps) if best else []

    def _validate(self, part: Part, step: int, best: BestSteps | None, saved: Sequence[int]) -> float:
        """Return the mean loss of the tasks of a part after a step, and let each run keep the step if it is its best so far.

        Raises:
            DivergedError: if a loss is not finite.
        """
        losses = self.validation_losses(part.adapter, part.data_sets, after=f"step {step}", left=left_by(saved))
        if best:
            scores = [-mean for mean in self.validation.means(losses, part.data_sets)]
            best.record(range(len(scores)), scores, trained_parameters(part.adapter), range(len(scores)), step=step)
        return mean_loss(losses.values())

    def _fit(self, model: nn.Module, optimizer: Optimizer, part: Part, first: int, saved: Sequence[int]) -> Iterator[Step]:
        parameters = list(trained_parameters(part.adapter).values())

        def clip() -> Tensor:
            self.execution.exchange(parameters)
            return clip_runs(parameters, self.params.clip_norm)

        return fit(
            model,
            optimizer,
            batches=part.batches,
            objective=part.adapter.objective(self.objective),
            clip=clip,
            accelerator=self.execution.accelerator,
            schedule=Schedule(part.steps, self.params.warmup, self.cell.seed, self.params.accumulation, first),
            training=Training(f"pretrain {self.cell.name}", "pretrain", part.data_sets, lambda: left_by(saved)),
            before_step=lambda step: part.fade(step, uniform_steps=self.params.uniform_steps),
        )

    @cached_property
    def validation(self) -> Validation:
        """What adapters are validated on."""
        samples = first_examples(self.examples, self.params.validate_examples)
        return Validation(self.backbone, self.examples.tasks, samples, self.data_sets, self.objective, self.execution)

    def validation_losses(
        self, adapter: Adapter, data_sets: Sequence[str], *, after: str = "the last step", left: str = "nothing was written"
    ) -> dict[str, float]:
        """The loss of every training task on its first validation examples.

        Args:
            adapter: of all tasks, or one for each of some data sets.
            data_sets: whose adapters these are; nothing if it is of all.
            after: when it is measured, for the error.
            left: what there is to go on from, likewise.

        Raises:
            DivergedError: if one is not finite.
        """
        try:
            return self.validation.losses(adapter, data_sets)
        except DivergedError as error:
            raise DivergedError(f"pretrain {self.cell.name}: {error} after {after}; lower pretrain.lr; {left}") from None
