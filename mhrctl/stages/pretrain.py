"""The stage `pretrain` learns adapters on all training tasks together, over a frozen backbone."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter, stack_runs, trainable
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.routing import uniform_interpolation
from mhrctl.analysis.alignment import gradient_alignment, require_shared, task_batches
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, write_card
from mhrctl.artifacts.facts import Parameters, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, LOG, TRAINING_EXAMPLES, VALIDATION
from mhrctl.artifacts.writing import replacing, write_csv, write_rows, write_text, writing
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch, MixedBatches, Order, RunBatches
from mhrctl.data.examples import Examples
from mhrctl.data.table import training_data_sets
from mhrctl.data.windows import WindowedOrder
from mhrctl.errors import DivergedError, ParamsError, in_section
from mhrctl.evaluation.validation import Validation, first_examples
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, new_adapter
from mhrctl.models.backbones import PRECISIONS, load_backbone, require_prepared
from mhrctl.training.checkpoint import checkpoint_path, checkpoints_of, load_checkpoint, save_checkpoint
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.loop import Schedule, Step, fit
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, trained_parameters

CHECKPOINT_EVERY = 1000
"""Steps between checkpoints: a matter of what a killed run has to do again, not of results."""
LOG_COLUMNS = ("step", "loss", "lr", "routing_lr", "tokens")
TOKENS = LOG_COLUMNS.index("tokens")
ALIGNMENT_COLUMNS = ("shared", "composed")
"""What the log has besides with `align_every`: empty in a line at whose step alignment was not measured."""


def pretrain(
    cell: Cell,
    params: PretrainParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None = None,
    out: Path,
    log: Path,
    scratch: Path,
    execution: Execution,
) -> Card[PretrainFacts]:
    """Write `adapters.safetensors`, `validation.csv` (loss by training task) and `log.jsonl` into `out`, and the log as CSV.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: the single adapter that a cell with extra steps trains on; None starts from nothing.
        out: the output folder.
        log: the same log as a CSV for git and DVC's plots: step, loss, rates, tokens seen, and any gradient alignment.
        scratch: folder for the checkpoints of a run in progress.
        execution: how to train; several tasks with an adapter of their own are trained in one batch. The recorder takes
            each line of the log, with the tokens a second since the one before, and the mean validation loss.

    Raises:
        ParamsError: if the heads do not divide a layer, a target is no layer, or there is no alignment to measure.
        DataError: if alignment is to be measured on one training task.
        ArtifactError: if an input folder is missing or does not fit.
        DivergedError: if a loss, a gradient or what is trained is not finite; the last good checkpoint stays.
    """
    if params.align_every:
        require_shared(cell, f"pretrain.align_every {params.align_every}")
    prepared_card = read_card(prepared, stage="prepare", command="mhrctl prepare")
    require_prepared(prepared, backbone)
    frozen, fingerprint = load_backbone(backbone)
    examples = Examples.open(prepared / TRAINING_EXAMPLES, scratch)
    private = cell.row.is_private
    data_sets = training_data_sets(prepared) if private else {}
    if start is None:
        tasks = len(data_sets if private else examples.tasks)
        try:
            with in_section("pretrain"):
                adapter = new_adapter(frozen, cell.row, params, heads=cell.heads, seed=cell.seed, tasks=tasks)
        except ValueError as error:
            raise ParamsError(f"--heads {cell.heads}: {error}") from None
    else:
        stage, origin = cell.origin
        origin_card = read_card(start, stage=stage, command=f"mhrctl {stage} {origin.options}", cell=origin)
        require_backbone(origin_card, start, fingerprint, backbone)
        require_made_from(origin_card, start, {"prepare": prepared})
        adapter = load_adapter(start / ADAPTERS)
        attach(frozen, adapter)
    frozen.to(dtype=PRECISIONS[params.precision])  # type: ignore[call-arg]
    facts = PretrainFacts(
        suite=prepared_card.facts.suite,
        tasks=list(data_sets) if private else examples.tasks,
        backbone=fingerprint,
        parameters=Parameters(
            multi_task=trainable(adapter.skill_parameters()), routing=trainable(adapter.routing_parameters())
        ),
    )
    many = execution.accelerator.num_processes
    made = provenance.of_pretrain(cell, params, prepared=prepared, backbone=backbone, start=start, processes=many)
    card = made.card(facts, threads=execution.threads)
    key = json.dumps(card.record)
    training = _Training(frozen, examples, data_sets, cell, params, scratch, key, execution)
    rows = training.private(adapter) if private else training.shared(adapter)
    losses = training.validation_losses(adapter)
    if execution.accelerator.is_main_process:
        columns = LOG_COLUMNS + ALIGNMENT_COLUMNS if params.align_every else LOG_COLUMNS
        with replacing(log) as table, writing(out) as folder:
            save_adapter(adapter, folder / ADAPTERS)
            write_csv(folder / VALIDATION, ("task", "loss"), losses.items())
            write_text(folder / LOG, "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
            write_rows(table, columns, rows)
            write_card(folder, card, beside={log.name: table})
        training.remove_checkpoints()
    if losses:
        execution.recorder.summary({"validation_loss": fmean(losses.values())})
    return card


def _due(step: int, every: int, steps: int) -> bool:
    """Whether something that is done every so many steps (0 is never) and in the last of `steps` is done in this one."""
    return every > 0 and (step % every == 0 or step == steps)


def _after(before: Sequence[Any], row: Sequence[Any]) -> list[Any]:
    """A row of the log whose steps and tokens are counted on from an earlier row."""
    return [row[0] + before[0], *row[1:TOKENS], row[TOKENS] + before[TOKENS], *row[TOKENS + 1 :]]


@dataclass(frozen=True)
class _Training:
    """The pre-training of one cell."""

    backbone: PreTrainedModel
    examples: Examples
    data_sets: Mapping[str, Sequence[str]]
    cell: Cell
    params: PretrainParams
    scratch: Path
    key: str
    execution: Execution

    @property
    def objective(self) -> Objective:
        return objective_of(self.backbone, self.params)

    def shared(self, adapter: Adapter) -> list[list[Any]]:
        """Train one adapter, routed or not, on all tasks in proportion to their examples; returns the rows of the log."""
        samples = self.examples.of(split="train").all_references()
        seed = f"{self.cell.seed}/extra" if self.cell.extra_steps else self.cell.seed
        batches = MixedBatches(
            samples,
            WindowedOrder(samples, seed, window=self.params.window, balance=self.params.balance),
            self.params.batch_size,
            pad=self.objective.pad,
            with_choices=self.objective.reads_choices,
        )
        with self.execution.track(f"pretrain {self.cell.name}", self.params.steps) as bar:
            checkpoint = checkpoint_path(self.scratch, self.cell.name)
            return self._train(adapter, batches, self.params.steps, checkpoint, self.key, bar.advance)

    def private(self, adapter: Adapter) -> list[list[Any]]:
        """Train an adapter for each data set, some to a batch, the steps divided among them; returns the rows of the log."""
        names, together = list(self.data_sets), self.execution.speed.together
        train = self.examples.of(split="train")
        samples = [train.of(tasks=self.data_sets[name]).all_references() for name in names]
        steps = math.ceil(self.params.steps / len(names))
        trained: list[dict[str, Tensor]] = []
        rows: list[list[Any]] = []
        with self.execution.track(f"pretrain {self.cell.name}", steps * math.ceil(len(names) / together)) as bar:
            for first in range(0, len(names), together):
                runs = list(range(len(names))[first : first + together])
                part = adapter.select(runs)
                batches = RunBatches(
                    [samples[run] for run in runs],
                    [Order(len(samples[run]), f"{self.cell.seed}/{names[run]}") for run in runs],
                    self.params.batch_size,
                    pad=self.objective.pad,
                    with_choices=self.objective.reads_choices,
                )
                checkpoint = checkpoint_path(self.scratch, self.cell.name, first)
                before = rows[-1] if rows else [0] * len(LOG_COLUMNS)
                key, tasks = f"{self.key}/{runs}", names[first : first + together]
                of_part = self._train(part, batches, steps, checkpoint, key, bar.advance, before, tasks)
                rows += [_after(before, row) for row in of_part]
                trained.append(part.state_dict())
        adapter.load_state_dict(stack_runs(trained))
        return rows

    def _train(
        self,
        adapter: Adapter,
        batches: MixedBatches | RunBatches,
        steps: int,
        checkpoint: Path,
        key: str,
        advance: Callable[..., None],
        before: Sequence[Any] = (0,) * len(LOG_COLUMNS),
        runs: Sequence[str] = (),
    ) -> list[list[Any]]:
        """Train an adapter, from its checkpoint if there is one of the same key, and return the rows of the log.

        `before` is the last row of the trainings that this one follows, from which the recorder counts on; `runs` are the
        names of what is trained side by side.
        """
        params, accelerator = self.params, self.execution.accelerator
        model = AdaptedModel(self.backbone, adapter, speed=self.execution.speed)
        optimizer = optimizer_of(adapter, params, fused=self.execution.speed.fused)
        adapter.constrain(optimizer)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        parameters = trained_parameters(adapter)
        tasks = self._aligned_tasks()
        first, rows = load_checkpoint(
            checkpoint,
            key=key,
            parameters=parameters,
            optimizer=optimizer,
            warn=self.execution.warn,
            set_aside=accelerator.is_main_process,
        )
        advance(first)
        saved = [first]  # the steps of the checkpoints that there are
        per_step = params.accumulation * accelerator.num_processes
        logged, tokens = (rows[-1][0], rows[-1][TOKENS]) if rows else (0, 0)
        tokens += sum(batches.tokens(micro) for micro in range(logged * per_step, first * per_step))
        began, counted = time.monotonic(), tokens
        for step in self._fit(wrapped, optimizer, adapter, batches, steps, first, self._named(runs, saved)):
            note = ""
            tokens += sum(batches.tokens((step.number - 1) * per_step + micro) for micro in range(per_step))
            aligned = _due(step.number, params.align_every, steps)
            logs = aligned or _due(step.number, params.log_every, steps)
            saves = step.number % CHECKPOINT_EVERY == 0 if step.number < steps else self.cell.row.is_private
            if logs or saves:
                step.require_finite()
            if logs:
                rates = [group["lr"] for group in optimizer.param_groups]
                loss = accelerator.reduce(step.losses, "mean").mean().item()
                seconds = time.monotonic() - began  # of training alone: `item` has waited for the device
                rows.append([step.number, round(loss, 5), rates[0], rates[1] if len(rates) > 1 else 0.0, tokens])
                if tasks:  # measured by the process that keeps the log; others wait for its next step
                    measured = aligned and accelerator.is_main_process
                    rows[-1] += gradient_alignment(model, tasks).logged if measured else [None] * len(ALIGNMENT_COLUMNS)
                self._record(_after(before, rows[-1]), (tokens - counted) / seconds)
                began, counted = time.monotonic(), tokens
                note = f"loss {loss:.3f}"
            if saves and accelerator.is_main_process:
                save_checkpoint(checkpoint, step=step.number, key=key, parameters=parameters, optimizer=optimizer, log=rows)
                saved.append(step.number)
            advance(note=note)
        return rows

    def _record(self, row: Sequence[Any], speed: float) -> None:
        """Report a row of the log; what was not measured in it is left out."""
        columns = LOG_COLUMNS + ALIGNMENT_COLUMNS
        values = {name: value for name, value in zip(columns, row, strict=False) if name != "step" and value is not None}
        self.execution.recorder.log(row[0], values | {"tokens_per_second": speed})

    def _fit(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        adapter: Adapter,
        batches: Callable[[int], Batch],
        steps: int,
        first: int,
        training: Training,
    ) -> Iterator[Step]:
        def fade(step: int) -> None:
            adapter.interpolate(uniform_interpolation(step, steps=steps, last=self.params.uniform_steps))

        return fit(
            model,
            optimizer,
            batches=batches,
            objective=adapter.objective(self.objective),
            clip=lambda: clip_runs(list(trained_parameters(adapter).values()), self.params.clip_norm),
            accelerator=self.execution.accelerator,
            schedule=Schedule(steps, self.params.warmup, self.cell.seed, self.params.accumulation, first),
            training=training,
            before_step=fade,
        )

    def _named(self, runs: Sequence[str], saved: Sequence[int]) -> Training:
        """How a training of the cell is called when it diverges, and what steps its checkpoints are of."""

        def kept() -> str:
            return f"its checkpoint of step {saved[-1]} is kept" if saved[-1] else "it has no checkpoint yet"

        return Training(f"pretrain {self.cell.name}", "pretrain", runs, kept)

    def _aligned_tasks(self) -> dict[str, Batch]:
        """The batches on which alignment is measured; none without `align_every`."""
        params = self.params
        if not params.align_every:
            return {}
        return task_batches(
            self.examples, tasks=params.align_tasks, size=params.align_examples, seed=self.cell.seed, pad=self.objective.pad
        )

    def remove_checkpoints(self) -> None:
        """Forget the checkpoints of a training whose output is written."""
        for path in checkpoints_of(self.scratch, self.cell.name):
            path.unlink()

    def validation_losses(self, adapter: Adapter) -> dict[str, float]:
        """The loss of every training task on its first validation examples.

        Raises:
            DivergedError: if one is not finite.
        """
        samples = first_examples(self.examples, self.params.validate_examples)
        validation = Validation(self.backbone, self.examples.tasks, samples, self.objective, self.execution)
        runs = {task: run for run, tasks in enumerate(self.data_sets.values()) for task in tasks}
        owners = {task: runs[self.examples.tasks[task]] for task in samples} if self.cell.row.is_private else None
        try:
            return validation.losses(adapter, owners)
        except DivergedError as error:
            raise DivergedError(
                f"pretrain {self.cell.name}: {error} after the last step; lower pretrain.lr; nothing was written"
            ) from None
