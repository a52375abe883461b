"""Adapters come in: what other libraries trained becomes a pre-training output that `average` and `adapt` start from."""

from __future__ import annotations

from pathlib import Path

from mhrctl.adapters.adapter import Adapter, trainable
from mhrctl.adapters.build import adapter_class
from mhrctl.adapters.files import save_adapter
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import Parameters, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.artifacts.ownership import require_apart
from mhrctl.artifacts.writing import writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.interchange.checkpoints import read_any
from mhrctl.interchange.convert import to_adapter
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import location, pretrained_config, require_prepared, shape_model


def import_adapter(
    path: Path,
    *,
    method: str | None,
    variant: str,
    seed: int,
    pretrain_seed: int | None,
    project: Project,
    heads: int | None = None,
    replace: bool = False,
) -> tuple[Cell, Card[PretrainFacts]]:
    """Read an adapter of another library, and write it where the pretrain stage writes.

    Args:
        path: a PEFT folder (LoRA, IA3, Poly), a checkpoint of the paper's authors, or T-Few's file.
        method: which pre-training this is; None goes by the file: ia3, lora, poly, or mhr with as many heads.
        variant: of the cell.
        seed: of the cell.
        pretrain_seed: of its pre-training, if that is another.
        project: with the outputs of prepare and backbone.
        heads: of the cell; None goes by the file.
        replace: whether an output that is there already may be replaced.

    Returns:
        The cell that can be adapted now, and the card of its pre-training.

    Raises:
        DataError: if something in the file cannot be placed in the backbone; names it.
        ParamsError: if the method does not fit the file.
        ArtifactError: if there is such an output already, or the backbone was made for another tokenizer.
    """
    require_prepared(project.output("prepare"), project.output("backbone"))
    prepared = read_card(project.output("prepare"), stage="prepare", command="mhrctl prepare")
    backbone = read_card(project.output("backbone"), stage="backbone", command="mhrctl backbone")
    place = location(project.output("backbone"), backbone)
    shapes = linear_shapes(shape_model(pretrained_config(place, revision=backbone.facts.revision)))
    adapter = to_adapter(read_any(path, shapes), shapes)
    if heads not in (None, adapter.heads):
        raise ParamsError(f"--cell: it has {heads} heads, and {path} has {adapter.heads}; name a cell with as many")
    cell = Cell(method=_method(adapter, method), heads=adapter.heads, variant=variant, seed=seed, pretrain_seed=pretrain_seed)
    pretraining = cell.pretrain_cell
    out = project.output("pretrain", pretraining.name)
    require_apart(out, path)
    if out.exists() and not replace:
        raise ArtifactError(f"{out}: there is a pre-training of this cell; choose another --seed, or --replace it")
    # The file does not say which tasks its rows of routing are: they get the names of their numbers.
    rows = adapter.routing_parameters()[0].shape[2] if adapter.routing_parameters() else 0
    facts = PretrainFacts(
        suite=prepared.facts.suite,
        tasks=[f"row {row} of {path.name}" for row in range(rows)],
        backbone=backbone.facts.fingerprint,
        parameters=Parameters(
            multi_task=trainable(adapter.skill_parameters()), routing=trainable(adapter.routing_parameters())
        ),
    )
    with writing(out) as folder:
        save_adapter(adapter, folder / ADAPTERS)
        card = Card.of("pretrain", {"cell": pretraining.model_dump(), "imported": path.name}, {"imported": path}, facts)
        write_card(folder, card)
    return cell, card


def _method(adapter: Adapter, asked: str | None) -> str:
    """Name the method that pre-trains such an adapter, or the one that was asked for if it is of the same kind."""
    fitting = [
        row.name
        for row in METHODS.values()
        if row.pretrain == row.name
        and not row.is_private
        and adapter_class(row) is type(adapter)
        and row.mixes_skills == adapter.averageable
        and row.multi_head == (adapter.heads > 1)
    ]
    if asked is None:
        return fitting[0]
    if asked not in METHODS or METHODS[asked].pretrain not in fitting:
        raise ParamsError(f"--method {asked}: the file holds what {' or '.join(fitting)} pre-trains")
    return METHODS[asked].pretrain
