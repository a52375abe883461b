"""The stage `pretrain` learns adapters on all training tasks together, over a frozen backbone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter, stack_runs, trainable
from mhrctl.adapters.build import adapter_class
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.stack import load_lower, over
from mhrctl.analysis.alignment import gradient_alignment, require_shared, task_batches
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, write_card
from mhrctl.artifacts.facts import Kept, Parameters, PretrainFacts
from mhrctl.artifacts.lower import lower_of, require_lower
from mhrctl.artifacts.names import ADAPTERS, LOG, TEST_EXAMPLES, TRAINING_EXAMPLES, VALIDATION
from mhrctl.artifacts.writing import replacing, write_csv, write_rows, write_text, writing
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch, MixedBatches, Order, RunBatches
from mhrctl.data.examples import Examples
from mhrctl.data.own_examples import OwnExamples
from mhrctl.data.samples import write_samples
from mhrctl.data.table import training_data_sets
from mhrctl.data.windows import WindowedOrder
from mhrctl.errors import DataError, DivergedError, ParamsError, StoppedError, counted, in_section
from mhrctl.evaluation.skills import begin_with
from mhrctl.evaluation.validation import Validation, first_examples, mean_loss
from mhrctl.interchange.pool import members_of
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, new_adapter
from mhrctl.models.backbones import load_backbone, require_prepared
from mhrctl.models.precision import set_precision
from mhrctl.models.quantised import require_changeable
from mhrctl.progress import Bar
from mhrctl.training.checkpoint import checkpoint_path, checkpoints_of, load_checkpoint, save_checkpoint
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.imported import Target, write_pool
from mhrctl.training.log import LOG_COLUMNS, counted_on, is_due
from mhrctl.training.loop import Schedule, Step, fit
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, trained_parameters
from mhrctl.training.part import Part, left_by
from mhrctl.training.pauses import Pauses
from mhrctl.training.selection import BestSteps

WITHOUT_TRAINING = "mark some as such, or take LoRAs that others trained (pretrain.loras of adapter_soup, `mhrctl import`)"
CHECKPOINT_EVERY = 1000
"""Steps between checkpoints at the most, and however fast they are: a matter of what a killed run has to do again alone."""
ALIGNMENT_COLUMNS = ("shared", "composed")
"""What the log has besides with `align_every`: empty in a line at whose step alignment was not measured."""
VALIDATION_COLUMNS = ("validation_loss",)
"""What it has with `validate_every`, likewise."""


def pretrain(
    cell: Cell,
    params: PretrainParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None = None,
    under: Path | None = None,
    pool: Path | None = None,
    root: Path = Path(),
    out: Path,
    log: Path,
    scratch: Path,
    execution: Execution,
) -> Card[PretrainFacts]:
    """Write `adapters.safetensors`, `validation.csv` (loss by training task) and `log.jsonl` into `out`, and the log as CSV.

    LoRAs that `params.loras` names are taken as they are: then there is neither a validation nor a log but an empty CSV.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: the single adapter that a cell with extra steps trains on; None starts from nothing.
        under: output of the pretrain or average stage whose adapter is frozen under what is trained.
        pool: output of the pretrain stage of whose adapters the skills are at the beginning.
        root: what relative folders of `params.loras` are relative to.
        out: the output folder.
        log: the same log as a CSV for git and DVC's plots: step, loss, rates, tokens seen, and any gradient alignment and
            validation loss.
        scratch: folder for the checkpoints of a run in progress.
        execution: how to train; several tasks with an adapter of their own are trained in one batch. The recorder takes
            each line of the log, with the tokens a second since the one before, and the mean validation loss.

    Raises:
        ParamsError: if the heads do not divide a layer, a target is no layer, there is no alignment to measure, or weights are
            to be divided among processes that cannot be.
        DataError: if alignment is to be measured on one training task, there is nothing to train or to validate on, or a LoRA
            cannot be used.
        ArtifactError: if an input folder is missing or does not fit.
        DivergedError: if a loss, a gradient or what is trained is not finite; the last good checkpoint stays.
        StoppedError: if it was asked to stop, and has left a checkpoint.
    """
    if params.loras:
        many = execution.accelerator.num_processes
        return _import(cell, params, prepared=prepared, backbone=backbone, root=root, out=out, log=log, processes=many)
    if params.align_every:
        require_shared(cell, f"pretrain.align_every {params.align_every}")
    if execution.sharding and adapter_class(cell.row).replaces_weights:
        raise ParamsError(f"--shard: {cell.row.name} trains all weights, and only frozen ones are divided among processes")
    prepared_card = read_card(prepared, stage="prepare", command="mhrctl prepare")
    require_prepared(prepared, backbone)
    private = cell.row.is_private
    examples, data_sets, of_tests = _examples(prepared, scratch, private=private, test_tasks=params.test_tasks)
    tasks = list(data_sets) if private else examples.tasks
    with execution.loading() as place:
        frozen, fingerprint = load_backbone(backbone)
        if adapter_class(cell.row).replaces_weights:
            require_changeable(frozen, f"--method {cell.method}")
        if start is None:
            adapter = _new(frozen, cell, params, tasks=len(tasks))
        else:
            stage, origin = cell.origin
            origin_card = read_card(start, stage=stage, command=f"mhrctl {stage} {origin.name}", cell=origin)
            require_backbone(origin_card, start, fingerprint, backbone)
            require_made_from(origin_card, start, {"prepare": prepared})
            require_lower(origin_card, start, under)
            adapter = load_adapter(start / ADAPTERS)
        adapter = over(load_lower(under, fingerprint), adapter)
        attach(frozen, adapter)
        set_precision(frozen, params.precision)
        place(frozen)
    counts = Parameters(multi_task=trainable(adapter.skill_parameters()), routing=trainable(adapter.routing_parameters()))
    facts = PretrainFacts(
        suite=prepared_card.facts.suite,
        tasks=tasks,
        backbone=fingerprint,
        parameters=counts,
        under=lower_of(under),
    )
    many = execution.accelerator.num_processes
    made = provenance.of_pretrain(
        cell, params, prepared=prepared, backbone=backbone, start=start, under=under, pool=pool, processes=many
    )
    card = made.card(facts, threads=execution.threads)
    key = json.dumps(card.record)
    trained = f"{counted(len(tasks), 'task')}, {counted(counts.multi_task + counts.routing, 'parameter')}"
    training = _Training(frozen, examples, data_sets, cell, params, scratch, key, execution, trained)
    if params.validate_every:
        with in_section("pretrain"):
            training.validation.require_samples()
    skills = training.begin(adapter, pool) if pool else []
    rows, kept = training.private(adapter) if private else training.shared(adapter)
    losses = training.validation_losses(adapter, list(data_sets))
    card = replace(card, facts=facts.model_copy(update={"kept": kept, "skills": skills}))
    if execution.accelerator.is_main_process:
        columns = training.columns
        with replacing(log) as table, writing(out) as folder:
            save_adapter(adapter, folder / ADAPTERS)
            write_csv(folder / VALIDATION, ("task", "loss"), losses.items())
            write_text(folder / LOG, "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
            write_rows(table, columns, rows)
            write_samples(of_tests, folder)
            write_card(folder, card, beside={log.name: table})
        for path in checkpoints_of(scratch, cell.name):
            path.unlink()
    if losses:
        execution.recorder.summary({"validation_loss": fmean(losses.values())})
    return card


def _import(
    cell: Cell, params: PretrainParams, *, prepared: Path, backbone: Path, root: Path, out: Path, log: Path, processes: int
) -> Card[PretrainFacts]:
    """Take LoRAs that others trained in place of training."""
    if processes > 1:
        raise ParamsError("pretrain.loras: are taken by one process; run it without a launcher")
    made = provenance.of_pretrain(cell, params, prepared=prepared, backbone=backbone, start=None, root=root)
    target = Target.of(prepared, backbone)
    return write_pool(members_of(params.loras, root), target, out=out, log=log, card_of=made.card)


def _examples(
    prepared: Path, scratch: Path, *, private: bool, test_tasks: bool
) -> tuple[Examples, dict[str, list[str]], dict[str, list[str]]]:
    """What is trained on, the data sets with an adapter each, and {test task: its own inputs} of those among them.

    Raises:
        DataError: if there is nothing to train on.
    """
    examples = Examples.open(prepared / TRAINING_EXAMPLES, scratch)
    data_sets = training_data_sets(prepared) if private else {}
    if not (examples.tasks or test_tasks):
        raise DataError(f"{prepared}: there are no training tasks to pre-train on; {WITHOUT_TRAINING}")
    if not test_tasks:
        return examples, data_sets, {}
    of_tests = OwnExamples.read(prepared / TEST_EXAMPLES)
    return of_tests.beside(examples), data_sets | {task: [task] for task in of_tests.inputs}, of_tests.inputs


def _new(frozen: PreTrainedModel, cell: Cell, params: PretrainParams, *, tasks: int) -> Adapter:
    """A new adapter of a cell, for which the backbone gets its slots."""
    try:
        with in_section("pretrain"):
            return new_adapter(frozen, cell.row, params, heads=cell.heads, seed=cell.seed, tasks=tasks)
    except ValueError as error:
        raise ParamsError(f"--heads {cell.heads}: {error}") from None


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
    trained: str  # on how many tasks, and how much

    @property
    def objective(self) -> Objective:
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
        tasks = self._aligned_tasks()
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
                    if tasks:  # measured by the process that keeps the log, and by those with a part of the weights
                        measured = aligned and (accelerator.is_main_process or execution.sharding is not None)
                        row.extend(gradient_alignment(model, tasks).logged if measured else [None] * len(ALIGNMENT_COLUMNS))
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

    def _aligned_tasks(self) -> dict[str, Batch]:
        """The batches on which alignment is measured; none without `align_every`."""
        params = self.params
        if not params.align_every:
            return {}
        return task_batches(self.examples, tasks=params.align_tasks, size=params.align_examples, seed=self.cell.seed)

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
