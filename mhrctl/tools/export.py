"""Adapters leave as PEFT folders and merged models, each with a card and a model card."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.finite import require_finite
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.stack import Stack, load_lower, over
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, require_replaceable, write_card
from mhrctl.artifacts.facts import BackboneFacts, Base, ExportFacts
from mhrctl.artifacts.lower import lower_folder
from mhrctl.artifacts.names import ADAPTERS, TOKENIZER, Project, folder_name
from mhrctl.artifacts.ownership import require_apart
from mhrctl.artifacts.writing import write_text, writing
from mhrctl.config.cells import Cell
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import ArtifactError, DataError, ParamsError, unknown
from mhrctl.interchange.convert import to_weights
from mhrctl.interchange.peft import write_peft
from mhrctl.interchange.serving import require_servable, with_siblings
from mhrctl.interchange.weights import Shapes, SkillWeights
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import framing_of, load_backbone, location, pretrained_config, require_prepared, shape_model
from mhrctl.models.generation import stops
from mhrctl.models.quantised import require_changeable
from mhrctl.tools.model_card import KINDS, Kind, ends_beside, looked_up, model_card
from mhrctl.tools.serving import require_servable_backbone, write_routes

ExportStage = Literal["pretrain", "average", "adapt"]
UNDER = "under"
"""The folder, in that of an adapter, of what lies under it."""
STACKED = """
## Under it

This adapter was trained on another, which lies in `under/` and stayed as it is. The two belong together:

```python
model.load_adapter(".", adapter_name="under", subfolder="under")
model.base_model.set_adapter(["under", "default"])  # the one that is loaded above
```

With another adapter in place of `under`, it is carried over to what that one was trained on.
"""


def export(
    cell: Cell,
    *,
    stage: ExportStage,
    tasks: Sequence[str],
    merge: bool,
    project: Project,
    out: Path | None = None,
    serving: bool = False,
    stack: bool = False,
) -> list[Path]:
    """Write a cell's adapters as PEFT folders, or merged into the backbone's weights.

    Args:
        cell: whose adapters.
        stage: whose output they are: adapted (one for each test task), averaged, or pre-trained.
        tasks: of these tasks only; empty for all.
        merge: write whole models, which need no adapter library.
        project: with the outputs of the stage, of the backbone, and of prepare, whose tokenizer goes with merged models.
        out: a folder for each task is made in it, or, of an adapter for all tasks, the folder itself;
            None is a folder of the project.
        serving: write PEFT folders that vLLM and SGLang load, one a task, and a routes.json beside them.
        stack: write what is frozen under the adapters as a folder in each, rather than joined with them into one LoRA.

    Returns:
        The folders.

    Raises:
        ParamsError: if the cell's adapter cannot leave in this form.
        DataError: if there is no such task.
        ArtifactError: if a number of the result is not finite.
    """
    if stage == "adapt" and cell.row.routes_queries:
        raise ParamsError(
            f"{cell.name}: each query is answered by a mixture of its own, so that there is no one adapter to export; export"
            f" the pool with `mhrctl export {cell.start[1].name} --stage pretrain`, or a merge of it"
        )
    if stage == "average" and not cell.row.has_average:
        raise ParamsError(f"--stage average: {cell.method} has no skills to average; export --stage pretrain or --stage adapt")
    source = project.output(stage, cell.name)
    card = read_card(source, stage=stage, command=f"mhrctl {stage} {cell.name}", cell=cell)
    start = _tuned_weights(cell, stage, project)
    backbone = project.output("backbone")
    frozen = read_card(backbone, stage="backbone", command="mhrctl backbone")
    require_backbone(card, source, frozen.facts.fingerprint, backbone)
    require_made_from(card, source, {"start": start})
    if merge:  # the tokenizer of prepare goes with it
        require_prepared(project.output("prepare"), backbone)
    adapter = load_adapter(source / ADAPTERS)
    under = load_lower(lower_folder(card, source), card.facts.backbone)
    by_task, routed = stage == "adapt" or cell.row.is_private, adapter
    if stage == "adapt":
        adapter = adapter.composed()
    _refuse(cell, adapter, stage, merge=merge, serving=serving)
    _refuse_stack(under, adapter, stack=stack, plain=not merge and not serving)
    adapter, below = (adapter, under) if stack else (_plain(over(under, adapter)), None)
    names: list[str] = card.facts.tasks if by_task else []
    if missing := [task for task in tasks if task not in names]:
        where = f"the {stage} output of {cell.name} is one adapter for all tasks" if not by_task else ""
        raise DataError(f"--task {missing[0]}: {where or unknown('task', missing[0], names)}")
    wanted: list[str | None] = [*(tasks or names)] or [None]
    into = out or project.output("export", "serving" if serving else stage) / cell.name
    folders = _folders(into, wanted, (source, backbone, project.output("prepare"), project.params))
    kind, transposed, config = _shape(backbone, frozen, over(below, adapter))
    base = _base(backbone)
    shapes = _served_shapes(config, base, transposed=transposed) if serving else None
    tokenizer = saved_tokenizer(project.output("prepare") / TOKENIZER)
    brings_tokenizer = merge or _is_of_its_own(project, base)
    ends = None if merge else ends_beside(base.name, config, tokenizer, revision=base.revision)
    for task, folder in zip(wanted, folders, strict=True):
        one = adapter.select([names.index(task)]) if task else adapter
        facts = ExportFacts(task=task, base=base, suite=card.facts.suite, backbone=card.facts.backbone, stacked=stack)
        with writing(folder) as aside:
            if merge:
                _write_merged(one, start, project, tokenizer, aside)
            else:
                how = {"base": base.name, "revision": base.revision, "task_type": kind.task_type}
                _write_peft(aside, one, below, shapes, transposed=transposed, dropout=one.dropout, **how)
            if brings_tokenizer:
                tokenizer.save_pretrained(str(aside))
            name = _as_code(base, folder, project)
            card_text = model_card(
                cell,
                stage,
                facts,
                looked_up(cell, stage, task, project, tokenizer=tokenizer, ends=ends),
                kind=kind,
                merged=merge,
                base="." if merge else name,
                tokenizer="." if brings_tokenizer else name,
            )
            write_text(aside / "README.md", card_text + (STACKED if stack else ""))
            what = {"cell": cell.model_dump(), "stage": stage, "merged": merge}
            write_card(aside, Card.of("export", what, {stage: source / ADAPTERS}, facts))
    if serving:
        write_routes(
            into.resolve(),
            {task: folder for task, folder in zip(wanted, folders, strict=True) if task},
            cell=cell,
            stage=stage,
            base=base,
            suite=card.facts.suite,
            adapter=routed,
            tasks=names,
            project=project,
        )
    return folders


def _served_shapes(config: PretrainedConfig, base: Base, *, transposed: bool) -> Shapes:
    """The shapes of a backbone's layers, which servers must know."""
    require_servable_backbone(config, base.name, base.revision, transposed=transposed)
    return linear_shapes(shape_model(config))


def _write_peft(folder: Path, adapter: Adapter, under: Adapter | None, shapes: Shapes | None, **how: Any) -> None:  # noqa: ANN401
    """Write a PEFT folder: one of a server's form, where the shapes of the backbone's layers are given; under it another."""
    if under is not None:
        write_peft(folder / UNDER, to_weights(_plain(under)), **how)
    weights = to_weights(adapter)
    if shapes is None or not isinstance(weights, SkillWeights):
        write_peft(folder, weights, **how)
        return
    write_peft(folder, with_siblings(weights, shapes), **how)
    require_servable(folder)


def _folders(into: Path, tasks: Sequence[str | None], inputs: Sequence[Path]) -> list[Path]:
    """The folder of each task, which may be written.

    Raises:
        DataError: if two tasks have the same.
        ArtifactError: if one holds other things.
        ParamsError: if one is an input.
    """
    folders = [(into / folder_name(task) if task else into).resolve() for task in tasks]
    for task, folder in zip(tasks, folders, strict=True):
        if folders.count(folder) > 1:
            raise DataError(f"--task {task}: another task has the folder {folder} too; export one at a time with --out")
        require_replaceable(folder, "export")
        for each in inputs:
            require_apart(folder, each)
    return folders


def merge_into(backbone: PreTrainedModel, adapter: Adapter) -> None:
    """Make what an adapter of one run stands for the backbone's own weights: W + s (A B)^T, or l * W, or other weights.

    Raises:
        ValueError: if it is routed, or of several runs.
        ParamsError: if a layer's weights are another's too, as those of a tied output layer, or are quantised.
    """
    require_changeable(backbone, "--merge")
    uses = Counter(id(parameter) for _, parameter in backbone.named_parameters(remove_duplicate=False))
    for name in adapter.shapes:
        if uses[id(backbone.get_submodule(name).weight)] > 1:
            raise ParamsError(f"--merge: {name} shares its weights with another layer, which would change too; use --to peft")
    adapter.put_into(backbone)


def _refuse(cell: Cell, adapter: Adapter, stage: ExportStage, *, merge: bool, serving: bool) -> None:
    """Reject what cannot leave in the form that was asked for."""
    if adapter.routes_by in ("token", "input"):
        form = "--merge" if merge else "--to serving" if serving else "--to peft"
        each = "token" if adapter.routes_by == "token" else "prompt"
        said = f"{form}: {cell.method} mixes its LoRAs for each {each}, as no single one does"
        pool = f"export the pool (`mhrctl export {cell.pretrain_cell.name} --stage pretrain`)"
        how = pool if cell.row.router else f"answer with it by `mhrctl predict --method {cell.method}`"
        raise ParamsError(f"{said}; {how}")
    if serving and (stage != "adapt" or merge):
        raise ParamsError("--to serving: writes a LoRA a task, which --stage adapt has; leave out --stage and --merge")
    if serving and not isinstance(adapter, Inventory):
        raise ParamsError(f"--to serving: what {cell.method} trains is no LoRA, and servers take nothing else; use --merge")
    if adapter.averageable:
        if merge:
            raise ParamsError("--merge: a routed inventory is no single adapter; export --stage adapt or --stage average")
        if "peft" not in adapter.exports_to:
            raise ParamsError(
                f"--to peft: what {cell.method} pre-trains has no form there; use --stage average or --stage adapt"
            )
    elif not merge and "peft" not in adapter.exports_to:
        raise ParamsError(f"--to peft: {cell.method} tunes whole weights, which are no adapter; use --merge")
    if not merge and cell.row.adds_lora and stage == "adapt":
        raise ParamsError(f"--to peft: the LoRA of {cell.method} belongs on tuned weights; use --merge")


def _refuse_stack(under: Adapter | None, adapter: Adapter, *, stack: bool, plain: bool) -> None:
    """Reject a stack where there is none, where it cannot be said, and what cannot be joined."""
    if stack and (under is None or not plain):
        why = "nothing lies under these adapters" if under is None else "PEFT folders alone are stacked"
        raise ParamsError(f"--stack: {why}; leave it out")
    if under is not None and adapter.averageable:
        raise ParamsError("a routed inventory on another adapter has no form in peft; export --stage adapt or --stage average")


def _plain(adapter: Adapter) -> Adapter:
    """An adapter joined with what lies under it, if anything does."""
    return adapter.joined() if isinstance(adapter, Stack) else adapter


def _tuned_weights(cell: Cell, stage: ExportStage, project: Project) -> Path | None:
    """The output whose weights an adapted LoRA belongs on; None if it belongs on those of the backbone."""
    if stage != "adapt" or not cell.row.adds_lora:
        return None
    start, origin = cell.start
    return project.output(start, origin.name)


def _write_merged(
    adapter: Adapter, start: Path | None, project: Project, tokenizer: PreTrainedTokenizerBase, out: Path
) -> None:
    model, _ = load_backbone(project.output("backbone"))
    if start is not None:
        merge_into(model, load_adapter(start / ADAPTERS))
    merge_into(model, adapter)
    require_finite(dict(model.named_parameters()), "the merged model", error=ArtifactError, how="train the adapter again")
    for name, ends in stops(model, tokenizer).items():  # what ends a turn ends an answer, whoever generates it
        setattr(model.generation_config, name, ends)
    model.save_pretrained(str(out))


def _is_of_its_own(project: Project, base: Base) -> bool:
    """Whether the tokenizer of the project is another than the one that a backbone on the hub brings."""
    card = read_card(project.output("prepare"), stage="prepare", command="mhrctl prepare")
    return base.source != "hub" or card.facts.chat is not None or card.params["tokenizer"] != base.name


def _as_code(base: Base, folder: Path, project: Project) -> str:
    """How code in a folder names the backbone: a folder of the project from there, so that the project can be moved."""
    if base.source == "hub" or not folder.is_relative_to(project.root.resolve()):
        return base.name
    return os.path.relpath(base.name, folder)


def _shape(backbone: Path, card: Card[BackboneFacts], adapter: Adapter) -> tuple[Kind, bool, PretrainedConfig]:
    """The kind of the backbone, whether an adapted layer has its weights as [d_in, d_out], and its config, which says so."""
    config = pretrained_config(location(backbone, card), revision=card.facts.revision)
    shape = shape_model(config)
    layers = [] if card.facts.quantisation else [shape.get_submodule(name) for name in adapter.shapes]
    return KINDS[framing_of(config)], any(isinstance(layer, Conv1D) for layer in layers), config


def _base(backbone: Path) -> Base:
    """Where the backbone of an export is found: on the hub, or in a folder."""
    card = read_card(backbone, stage="backbone", command="mhrctl backbone")
    place = location(backbone, card)
    if card.facts.gguf is not None:  # whose weights as they are trained on are in the stage's output alone
        return Base(source="local", name=str(Path(place).resolve()), revision=None)
    facts = card.facts
    if facts.quantisation is not None:  # as who loads the adapter may quantise the model, or not
        place = facts.name if facts.source == "hub" else str(backbone / (facts.path or ""))
    name = place if facts.source == "hub" else str(Path(place).resolve())
    return Base(source=facts.source, name=name, revision=facts.revision, quantisation=facts.quantisation)
