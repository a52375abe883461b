"""What answers by a cell's adapters, or by exported ones, is read from their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.stack import load_lower, over
from mhrctl.artifacts.cards import Card, facts_in, read_card, require_backbone, require_made_from, try_card
from mhrctl.artifacts.facts import AdaptFacts, ExportFacts, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, TASKS, Project
from mhrctl.artifacts.reading import read_json_of, reading
from mhrctl.config.cells import Cell
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.interchange.checkpoints import read_any
from mhrctl.interchange.convert import to_adapter
from mhrctl.models.attach import attach, inject, linear_shapes
from mhrctl.models.backbones import open_backbone
from mhrctl.stages.evaluate import load_phases, lower_of_outputs, open_router, read_cards
from mhrctl.tools.predictor import Fitted, Predictor
from mhrctl.training.execution import Execution

PredictStage = Literal["pretrain", "average", "adapt"]


@dataclass(frozen=True)
class Base:
    """A base is a backbone that is loaded once, and to which the adapters of several cells are attached.

    Attributes:
        model: the backbone.
        tokenizer: of the project.
        fingerprint: of the backbone.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def open_base(project: Project) -> Base:
    """Load the backbone of a project.

    Raises:
        ArtifactError: if it is missing, or has changed.
    """
    folder = project.output("backbone")
    model, tokenizer = open_backbone(project.output("prepare"), folder, None, None)
    return Base(model, tokenizer, read_card(folder, stage="backbone", command="mhrctl backbone").facts.fingerprint)


def of_cell(
    cell: Cell | None,
    params: EvaluateParams,
    *,
    stage: PredictStage,
    project: Project,
    execution: Execution,
    base: Base | None = None,
) -> Predictor:
    """Load what answers by a cell.

    Args:
        cell: whose adapters; None is the bare backbone.
        params: precision, beams and lengths.
        stage: whose output: adapted ones, with the start of adaptation for tasks that the cell was not adapted to; pre-trained
            ones, by each training task's routing, with the average for other tasks; or averaged ones for all.
        project: with the outputs.
        execution: how to run.
        base: the backbone, of a cell whose method leaves its weights as they are; None loads it.

    Raises:
        ArtifactError: if an output is missing, or was made from others.
        ParamsError: if the cell has nothing of the stage.
    """
    if cell is None or stage == "adapt":
        backbone, tokenizer, adapters = _adapted(cell, params, project, base, device=str(execution.accelerator.device))
    else:
        source = project.output(stage, cell.name)
        if stage == "average" and not cell.row.has_average:
            raise ParamsError(f"--stage average: {cell.method} has no skills to average; name --stage pretrain or adapt")
        card = read_card(source, stage=stage, command=f"mhrctl {stage} {cell.name}", cell=cell)
        backbone, tokenizer = _opened(project, card, source, base)
        lower = load_lower(lower_of_outputs(cell, params, card, source), card.facts.backbone)
        adapter = over(lower, load_adapter(source / ADAPTERS))
        attach(backbone, adapter)
        tasks, prepared = card.facts.tasks, project.output("prepare")
        adapters = _pretrained(cell, adapter, tasks, prepared) if stage == "pretrain" else [Fitted(adapter)]
    name = cell.name if cell else "the backbone"
    return Predictor(backbone, tokenizer, adapters, name=name, params=params, execution=execution)


def _opened(
    project: Project, card: Card[PretrainFacts | AdaptFacts] | None, folder: Path | None, base: Base | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone that an adapter, with this card in this folder, was made for."""
    prepared, place = project.output("prepare"), project.output("backbone")
    if base is None:
        return open_backbone(prepared, place, card, folder)
    if card is not None and folder is not None:
        require_made_from(card, folder, {"prepare": prepared})
        require_backbone(card, folder, base.fingerprint, place)
    return base.model, base.tokenizer


def _adapted(
    cell: Cell | None, params: EvaluateParams, project: Project, base: Base | None, *, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[Fitted]]:
    prepared, start, adapted, lower = project.output("prepare"), None, None, None
    if cell is not None:
        stage, origin = cell.start
        start = project.output(stage, origin.name)
        adapted = project.output("adapt", cell.name)
    start_card, adapted_card = read_cards(cell, start, adapted)
    backbone, tokenizer = _opened(project, adapted_card or start_card, adapted if adapted_card else start, base)
    if cell and start and adapted_card and adapted:
        require_made_from(adapted_card, adapted, {"prepare": prepared, "start": start})
        lower = load_lower(lower_of_outputs(cell, params, adapted_card, adapted), adapted_card.facts.backbone)
    if router := open_router(cell, start, adapted, backbone, project.root, device):
        return backbone, tokenizer, [Fitted(None, router=router)]
    phases = load_phases(cell, start, adapted, backbone, lower)
    before, after = phases["zero_shot"], phases.get("adapted")
    if cell is None or after is None or adapted_card is None:
        return backbone, tokenizer, [Fitted(before)]
    fitted = [Fitted(after, _numbered(adapted_card.facts.tasks))]
    if before is None or before.runs == 1:  # soups are of test tasks alone, as adapted adapters are
        fitted.append(Fitted(before, note=f"answered zero-shot, as {cell.name} was not adapted to them"))
    return backbone, tokenizer, fitted


def _pretrained(cell: Cell, adapter: Adapter, tasks: Sequence[str], prepared: Path) -> list[Fitted]:
    """Of a pre-training: the adapter of each training task, and for other tasks the average where there is one."""
    if cell.row.is_private:
        sets = {row["name"]: row["dataset"] for row in read_json_of(prepared / TASKS)["tasks"] if row["role"] == "training"}
        runs = _numbered(tasks)
        return [Fitted(adapter, {name: runs[group] for name, group in sets.items() if group in runs} | runs)]
    average = adapter.average()
    if not adapter.tasks:
        return [Fitted(average)]
    note = f"answered by the average, as {cell.name} was not pre-trained on them"
    return [Fitted(adapter, _numbered(tasks), is_routed=True), Fitted(average, note=note)]


def _numbered(tasks: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(tasks)}


def of_folders(folders: Sequence[Path], params: EvaluateParams, *, project: Project, execution: Execution) -> Predictor:
    """Load what answers by exported adapters, each of the task that its card names.

    Args:
        folders: that peft, or `mhrctl export`, has written. One without a card, or for all tasks, answers every other task.
        params: precision, beams and lengths.
        project: whose backbone they are for.
        execution: how to run.

    Raises:
        ArtifactError: if one is for another backbone.
        DataError: if one is no adapter that can be read.
        ParamsError: if two are of one task, or one cannot be used as it is.
    """
    cards = [_export_card(folder) for folder in folders]
    for folder, card in zip(folders, cards, strict=True):
        if card and card.params.get("merged"):
            raise ParamsError(
                f"--adapter {folder}: is a whole model, which needs no mhrctl; its README.md shows how to load it"
            )
    base, place = open_base(project), project.output("backbone")
    backbone, fingerprint = base.model, base.fingerprint
    shapes = linear_shapes(backbone)
    of_task: dict[str | None, Fitted] = {}
    for folder, card in zip(folders, cards, strict=True):
        if card and card.facts.stacked:
            raise ParamsError(f"--adapter {folder}: is one of two adapters; export it without --stack, or name its cell")
        if card and card.facts.backbone != fingerprint:
            raise ArtifactError(
                f"--adapter {folder}: is for another backbone ({card.facts.base.name}, {card.facts.backbone[:12]}, and not"
                f" {fingerprint[:12]} in {place}); predict in a project of that"
            )
        task = card.facts.task if card else None
        if task in of_task:
            raise ParamsError(f"--adapter {folder}: another is of {task or 'every task'} too; leave one out")
        with reading(folder):
            adapter = to_adapter(read_any(folder, shapes), shapes)
        if adapter.tasks > 1:
            raise ParamsError(
                f"--adapter {folder}: is an inventory, whose routing names no tasks; name its cell, with --stage pretrain"
            )
        of_task[task] = Fitted(adapter.composed() if adapter.averageable else adapter, {task: 0} if task else None)
    layers = {name for fitted in of_task.values() if fitted.adapter for name in fitted.adapter.shapes}
    backbone.requires_grad_(requires_grad=False)
    inject(backbone, [name for name in shapes if name in layers])
    ordered = [of_task[task] for task in sorted(of_task, key=lambda task: (task is None, task or ""))]
    name = str(folders[0]) if len(folders) == 1 else f"the {len(folders)} adapters"
    return Predictor(backbone, base.tokenizer, ordered, name=name, params=params, execution=execution)


def task_of(folders: Sequence[Path]) -> str | None:
    """Return the task of the lines that name none: that of a single exported adapter."""
    facts = facts_in(folders[0], ExportFacts) if len(folders) == 1 else None
    return facts.task if facts else None


def _export_card(folder: Path) -> Card[ExportFacts] | None:
    """The card of an export; none of what another library has written."""
    if not folder.exists():
        raise DataError(f"--adapter {folder}: no such folder")
    card, facts = try_card(folder), facts_in(folder, ExportFacts)
    if card is None:
        return None
    if card.stage != "export" or facts is None:
        raise ParamsError(f"--adapter {folder}: holds what the {card.stage} stage has written; name its cell in its place")
    return replace(card, facts=facts)
