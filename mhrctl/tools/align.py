"""`align` measures how far training tasks pull the adapters of a cell the same way, at a point of its pre-training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.routing import uniform_interpolation
from mhrctl.analysis.alignment import DIGITS, Alignment, gradient_alignment, require_shared, task_batches
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, require_tasks
from mhrctl.artifacts.facts import PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, TRAINING_EXAMPLES, Project
from mhrctl.artifacts.sealing import sealed
from mhrctl.artifacts.writing import write_json
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.examples import Examples
from mhrctl.errors import ArtifactError, ParamsError, in_section
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, new_adapter
from mhrctl.models.backbones import load_backbone, require_prepared
from mhrctl.models.precision import set_precision
from mhrctl.progress import Track, silent
from mhrctl.training.checkpoint import Checkpoint, DamagedError, checkpoint_path, last_checkpoint
from mhrctl.training.optimizers import trained_parameters

Point = Literal["start", "end", "checkpoint"]
"""Of a pre-training: before it, after it, or the last checkpoint of a run in progress."""


def align(
    cell: Cell,
    params: PretrainParams,
    *,
    at: Point,
    project: Project,
    tasks: int,
    examples: int,
    device: torch.device,
    track: Track = silent,
) -> tuple[Alignment, Path]:
    """Measure the gradient alignment of a pre-training cell, and write it as JSON.

    Args:
        cell: the pre-training cell; its seed also draws tasks and examples, the same for all methods.
        params: the cell's resolved section, by which `start` makes the adapter; `end` and `checkpoint` go by what was trained.
        at: which adapter.
        project: with the outputs of prepare and backbone, and of the pre-training or its checkpoint.
        tasks: how many training tasks, at most all.
        examples: training examples of each, at most all.
        device: where to compute.
        track: shows progress.

    Returns:
        The alignment, and the file that was written.

    Raises:
        ParamsError: if the method's training tasks share no adapter, or fewer than two are to be drawn.
        DataError: if there are not two training tasks.
        ArtifactError: if an input is missing or does not fit.
    """
    require_shared(cell, f"--method {cell.method}")
    if at == "start" and params.under is not None:
        raise ParamsError(f"pretrain.under {params.under}: alignment is of an adapter with nothing under it; leave it out")
    prepared, backbone = project.output("prepare"), project.output("backbone")
    require_prepared(prepared, backbone)
    known = Examples.open(prepared / TRAINING_EXAMPLES, project.scratch)
    frozen, fingerprint = load_backbone(backbone)
    batches = task_batches(known, tasks=tasks, size=examples, seed=cell.seed)

    def fits(card: Card[PretrainFacts], source: Path) -> None:
        if card.facts.under is not None:
            raise ParamsError(f"{source}: was trained on another adapter, and alignment is of one with nothing under it")
        require_backbone(card, source, fingerprint, backbone)
        require_tasks(card, source, known.tasks)
        require_made_from(card, source, {"prepare": prepared})

    adapter, params, step = _adapter_at(at, cell, params, frozen, tasks=len(known.tasks), project=project, fits=fits)
    set_precision(frozen, params.precision)
    model = AdaptedModel(frozen, adapter).to(device)
    with track(f"align {cell.name}", len(batches)) as bar:
        alignment = gradient_alignment(model, batches, advance=bar.advance)
    facts = {"method": cell.method, "heads": cell.heads, "variant": cell.variant, "seed": cell.seed}
    facts |= {"at": at, "step": step, "backbone": fingerprint, "examples": examples}
    out = project.alignment(alignment_name(cell, at))
    write_json(out, sealed(facts | _record(alignment)))
    return alignment, out


def alignment_name(cell: Cell, at: Point) -> str:
    """Return the name of what is measured: that of the cell, and where it is not of the end, the point."""
    return cell.name if at == "end" else f"{cell.name}-{at}"


def _adapter_at(
    at: Point,
    cell: Cell,
    params: PretrainParams,
    backbone: PreTrainedModel,
    *,
    tasks: int,
    project: Project,
    fits: Callable[[Card[PretrainFacts], Path], None],
) -> tuple[Adapter, PretrainParams, int]:
    """Open a cell's adapter at a point of its pre-training, attached to the backbone: with its settings and its steps."""
    if at == "start":
        return _new(cell, params, backbone, tasks), params, 0
    if at == "end":
        pretrained = project.output("pretrain", cell.name)
        card = read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {cell.name}", cell=cell)
        fits(card, pretrained)
        params = PretrainParams.model_validate(card.params["pretrain"])
        adapter, step = load_adapter(pretrained / ADAPTERS), card.facts.kept[0].step if card.facts.kept else params.steps
        attach(backbone, adapter)
    else:
        path = checkpoint_path(project.scratch, cell.name)
        kept = _checkpoint(path, cell)
        card = Card.read(json.loads(kept.key), PretrainFacts)
        fits(card, path)
        params = PretrainParams.model_validate(card.params["pretrain"])
        adapter = _new(cell, params, backbone, tasks)
        step = kept.step
        try:
            kept.fill(trained_parameters(adapter))
        except DamagedError as error:
            raise ArtifactError(f"{path}: {error}; run `mhrctl pretrain {cell.name}` again") from None
    adapter.interpolate(uniform_interpolation(step - 1, steps=params.steps, last=params.uniform_steps))
    return adapter, params, step


def _new(cell: Cell, params: PretrainParams, backbone: PreTrainedModel, tasks: int) -> Adapter:
    """Make a cell's adapter as its pre-training does before the first step."""
    try:
        with in_section("pretrain"):
            return new_adapter(backbone, cell.row, params, heads=cell.heads, seed=cell.seed, tasks=tasks)
    except ValueError as error:
        raise ParamsError(f"--heads {cell.heads}: {error}") from None


def _checkpoint(path: Path, cell: Cell) -> Checkpoint:
    """The last whole checkpoint of a training; its key is the card of the output that the training will write."""
    kept = last_checkpoint(path)
    if kept is None:
        raise ArtifactError(f"{path}: no run in progress of {cell.name} has left a checkpoint; use --at start or --at end")
    return kept


def _record(alignment: Alignment) -> dict[str, Any]:
    """The alignment as JSON."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, DIGITS)

    record: dict[str, Any] = {"tasks": list(alignment.tasks)}
    for name, agreement in (("shared", alignment.shared), ("composed", alignment.composed)):
        parts = {part: rounded(getattr(agreement, part)) for part in ("overall", "encoder", "decoder")}
        record[name] = parts | {"layers": {layer: rounded(value) for layer, value in agreement.layers.items()}}
    return record
