"""pretrain: skills and routing learned together on the training tasks, over a frozen backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhrctl import artifacts
from mhrctl.adapters.files import save_inventory
from mhrctl.adapters.inventory import Inventory, trainable
from mhrctl.adapters.layer import inject
from mhrctl.adapters.model import AdaptedModel
from mhrctl.artifacts import Card
from mhrctl.backbones import load_backbone
from mhrctl.errors import ParamsError
from mhrctl.params import Cell, OptimisationParams, PretrainParams
from mhrctl.prediction import sample_losses
from mhrctl.progress import Track, silent
from mhrctl.training.checkpoint import load_checkpoint, save_checkpoint
from mhrctl.training.data import Batch, Examples, Order, Sample, collate
from mhrctl.training.loop import Objective, fit
from mhrctl.training.optimizers import clip_runs, make_optimizer

CHECKPOINT_EVERY = 1000
"""Steps between checkpoints: a matter of what a killed run has to do again, not of results."""
VALIDATED_TASKS = 16
"""Tasks in a validation batch: a matter of memory, not of results."""
LOG_COLUMNS = ("step", "loss", "lr", "routing_lr", "tokens")


def pretrain(
    cell: Cell,
    params: PretrainParams,
    *,
    prepared: Path,
    backbone: Path,
    out: Path,
    log: Path,
    scratch: Path,
    accelerator: Accelerator,
    track: Track = silent,
) -> Card:
    """Write `adapters.safetensors`, `validation.csv` (loss by training task) and `log.jsonl` into `out`, and the log as CSV.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        out: the output folder.
        log: the same log as a CSV for git and DVC's plots: step, loss, rates, tokens seen.
        scratch: folder for the checkpoints of a run in progress.
        accelerator: where to train.
        track: shows progress.

    Raises:
        ParamsError: if the heads do not divide a layer, or a target is no layer.
        ArtifactError: if an input folder is missing or does not fit.
    """
    prepared_card = artifacts.read_card(prepared, stage="prepare", command="mhrctl prepare")
    frozen, fingerprint = load_backbone(backbone, precision=params.precision)
    examples = Examples.read(prepared / artifacts.TRAINING_EXAMPLES)
    inventory = new_inventory(frozen, cell, params, tasks=len(examples.tasks))
    model = AdaptedModel(frozen, inventory)
    parents = {"prepare": prepared / artifacts.TRAINING_EXAMPLES, "backbone": backbone / artifacts.CARD}
    counts = {
        "multi_task": trainable(inventory.skill_parameters()),
        "routing": trainable(inventory.routing_parameters()),
    }
    facts = {
        "suite": prepared_card.facts["suite"],
        "tasks": examples.tasks,
        "backbone": fingerprint,
        "parameters": counts,
    }
    card = Card.of("pretrain", {"cell": cell.model_dump(), "pretrain": params.model_dump()}, parents, **facts)
    objective = Objective(
        params.loss,
        params.label_smoothing,
        start_token=frozen.config.decoder_start_token_id,
        pad=frozen.config.pad_token_id,
    )
    checkpoint = scratch / f"pretrain-{cell.name}.safetensors"
    key = json.dumps(vars(card), default=dict)
    rows = _train(model, inventory, examples, cell, params, objective, checkpoint, key, accelerator, track)
    losses = _validation_losses(model, examples, params.validate_examples, objective, accelerator.device)
    if accelerator.is_main_process:
        artifacts.write_csv(log, LOG_COLUMNS, rows)
        with artifacts.writing(out) as folder:
            save_inventory(inventory, folder / artifacts.ADAPTERS)
            artifacts.write_csv(folder / artifacts.VALIDATION, ("task", "loss"), losses)
            (folder / artifacts.LOG).write_text(
                "".join(json.dumps(dict(zip(LOG_COLUMNS, row, strict=True))) + "\n" for row in rows)
            )
            artifacts.write_card(folder, card)
        checkpoint.unlink(missing_ok=True)
    return card


def new_inventory(backbone: PreTrainedModel, cell: Cell, params: PretrainParams, *, tasks: int) -> Inventory:
    """Inject adapted layers into a backbone and make the inventory of a cell for them; its init depends on the seed only."""
    shapes = inject(backbone, params.targets)
    torch.manual_seed(cell.seed)
    routed = cell.row.routed
    try:
        return Inventory(
            shapes,
            heads=cell.heads,
            skills=params.skills if routed else 1,
            rank=params.rank,
            alpha=params.alpha,
            tasks=tasks,
            temperature=params.temperature if routed and params.relaxed_bernoulli else None,
        )
    except ValueError as error:
        raise ParamsError(f"--heads {cell.heads}: {error}") from None


def optimizer_of(inventory: Inventory, params: OptimisationParams) -> Optimizer:
    """Make the optimizer of what an inventory trains."""
    return make_optimizer(
        params.optimizer,
        skills=[parameter for parameter in inventory.skill_parameters() if parameter.requires_grad],
        routing=inventory.routing_parameters(),
        lr=params.lr,
        routing_lr=params.routing_lr,
        weight_decay=params.weight_decay,
        scale_parameter=params.scale_parameter,
    )


def _train(
    model: AdaptedModel,
    inventory: Inventory,
    examples: Examples,
    cell: Cell,
    params: PretrainParams,
    objective: Objective,
    checkpoint: Path,
    key: str,
    accelerator: Accelerator,
    track: Track,
) -> list[list[Any]]:
    """Train the model's inventory, and return the rows of the log."""
    wrapped, optimizer = accelerator.prepare(model, optimizer_of(inventory, params))
    parameters = _trained(inventory)
    first, rows = load_checkpoint(checkpoint, key=key, parameters=parameters, optimizer=optimizer)
    batches = _Batches(examples, params.batch_size, cell.seed, objective.pad)
    per_step = params.accumulation * accelerator.num_processes
    logged, tokens = (rows[-1][0], rows[-1][-1]) if rows else (0, 0)
    tokens += sum(batches.tokens(micro) for micro in range(logged * per_step, first * per_step))
    steps = fit(
        wrapped,
        optimizer,
        batches=batches,
        objective=objective,
        clip=lambda: clip_runs(list(parameters.values()), params.clip_norm),
        accelerator=accelerator,
        steps=params.steps,
        warmup=params.warmup,
        seed=cell.seed,
        accumulation=params.accumulation,
        first=first,
    )
    with track(f"pretrain {cell.name}", params.steps) as bar:
        bar.advance(first)
        for step in steps:
            note = ""
            tokens += sum(batches.tokens((step.number - 1) * per_step + micro) for micro in range(per_step))
            if step.number % params.log_every == 0 or step.number == params.steps:
                rates = [group["lr"] for group in optimizer.param_groups]
                loss = accelerator.reduce(step.losses, "mean").item()
                routing_lr = rates[1] if len(rates) > 1 else 0.0
                rows.append([step.number, round(loss, 5), rates[0], routing_lr, tokens])
                note = f"loss {loss:.3f}"
            if step.number % CHECKPOINT_EVERY == 0 and accelerator.is_main_process and step.number < params.steps:
                save_checkpoint(checkpoint, step=step.number, key=key, parameters=parameters, optimizer=optimizer, log=rows)
            bar.advance(note=note)
    return rows


def _trained(inventory: Inventory) -> Mapping[str, nn.Parameter]:
    return {name: parameter for name, parameter in inventory.named_parameters() if parameter.requires_grad}


class _Batches:
    """Micro-batches from all training tasks in proportion to their examples, every row a group with its task's routing."""

    def __init__(self, examples: Examples, batch_size: int, seed: int, pad: int) -> None:
        self._samples = examples.of(split="train").all_references()
        self._order = Order(len(self._samples), seed)
        self._batch_size, self._pad = batch_size, pad

    def __call__(self, micro: int) -> Batch:
        samples = self._of(micro)
        return collate(samples, [[sample.task for sample in samples]], pad=self._pad)

    def tokens(self, micro: int) -> int:
        """Input and target tokens of a micro-batch, without padding."""
        return sum(len(sample.input_ids) + len(sample.target_ids) for sample in self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        return [self._samples[row] for row in self._order.slice(micro * self._batch_size, self._batch_size)]


def _validation_losses(
    model: AdaptedModel, examples: Examples, count: int, objective: Objective, device: torch.device
) -> list[tuple[str, float]]:
    """The loss of every training task on its first validation examples."""
    by_task: dict[int, list[Sample]] = {}
    for sample in examples.of(split="validation").scored():
        rows = by_task.setdefault(sample.task, [])
        if len(rows) < count:
            rows.append(sample)
    tasks = sorted(by_task)
    losses = []
    for start in range(0, len(tasks) if count else 0, VALIDATED_TASKS):
        part = tasks[start : start + VALIDATED_TASKS]
        values = sample_losses(model, [by_task[task] for task in part], [part], objective=objective, device=device)
        losses += [(examples.tasks[task], round(value, 5)) for task, value in zip(part, values, strict=True)]
    return losses
