"""Adapters come in: what other libraries trained becomes pre-training outputs that `average` and `adapt` start from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mhrctl.adapters.adapter import Adapter, trainable
from mhrctl.adapters.build import adapter_class
from mhrctl.adapters.files import save_adapter
from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import Parameters, PretrainFacts
from mhrctl.artifacts.hashing import digest_of
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.artifacts.ownership import require_apart
from mhrctl.artifacts.writing import replacing, write_csv, writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS, POOLED
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.interchange.checkpoints import read_any
from mhrctl.interchange.convert import to_adapter
from mhrctl.interchange.pool import members_of
from mhrctl.training.imported import Target, write_pool
from mhrctl.training.log import LOG_COLUMNS

DVC = ".dvc"
"""The folder that makes a project one of DVC's."""


def import_adapter(
    path: Path,
    *,
    method: str | None,
    variant: str,
    seed: int,
    pretrain_seed: int | None,
    project: Project,
    heads: int | None = None,
    overwrite: bool = False,
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
        overwrite: whether an output that is there already may be replaced.

    Returns:
        The cell that can be adapted now, and the card of its pre-training.

    Raises:
        DataError: if something in the file cannot be placed in the backbone; names it.
        ParamsError: if the method does not fit the file.
        ArtifactError: if there is such an output already, or the backbone was made for another tokenizer.
    """
    target = _target(project)
    adapter = to_adapter(read_any(path, target.shapes), target.shapes)
    if heads not in (None, adapter.heads):
        raise ParamsError(f"--cell: it has {heads} heads, and {path} has {adapter.heads}; name a cell with as many")
    cell = Cell(method=_method(adapter, method), heads=adapter.heads, variant=variant, seed=seed, pretrain_seed=pretrain_seed)
    out = _place(project, cell, [path], overwrite=overwrite)
    # The file does not say which tasks its rows of routing are: they get the names of their numbers.
    facts = target.facts(
        tasks=[f"row {row} of {path.name}" for row in range(adapter.tasks)],
        parameters=Parameters(
            multi_task=trainable(adapter.skill_parameters()), routing=trainable(adapter.routing_parameters())
        ),
    )
    with replacing(project.training_log(cell.pretrain_cell.name)) as log, writing(out) as folder:
        write_csv(log, LOG_COLUMNS, [])
        save_adapter(adapter, folder / ADAPTERS)
        settings = {"cell": cell.pretrain_cell.model_dump(), "imported": path.name}
        card = Card.of("pretrain", settings, {"imported": path}, facts)
        write_card(folder, card)
    return cell, card


def import_pool(
    sources: Sequence[str], *, variant: str, seed: int, pretrain_seed: int | None, project: Project, overwrite: bool = False
) -> tuple[Cell, Card[PretrainFacts]]:
    """Read LoRAs that were trained elsewhere, and write them where `adapter_soup`'s pre-training writes those that it trains.

    Args:
        sources: folders, hub ids, lists; see `mhrctl.interchange.pool.members_of`.
        variant: of the cell.
        seed: of the cell.
        pretrain_seed: of its pre-training, if that is another.
        project: with the outputs of prepare and backbone.
        overwrite: whether an output that is there already may be replaced.

    Returns:
        The cell that can be adapted now, and the card of its pre-training.

    Raises:
        DataError: if an adapter cannot be had or used; names it, and those that can.
        ArtifactError: if there is such an output already, or the backbone was made for another tokenizer.
    """
    target = _target(project)
    cell, members = Cell(method=POOLED, variant=variant, seed=seed, pretrain_seed=pretrain_seed), members_of(sources)
    out = _place(project, cell, [member.folder for member in members], overwrite=overwrite)

    def card_of(facts: PretrainFacts) -> Card[PretrainFacts]:
        settings = {"cell": cell.pretrain_cell.model_dump(), "imported": "pool"}
        content = digest_of({Path(name): each.sha256 for name, each in zip(facts.tasks, facts.pool, strict=True)})
        return replace(Card.of("pretrain", settings, {}, facts), parents={"imported": content})

    log = project.training_log(cell.pretrain_cell.name)
    return cell, write_pool(members, target, out=out, log=log, card_of=card_of)


def keep(cell: Cell, project: Project) -> bool:
    """Tell DVC that what was imported is what its stage makes, so that it is not pre-trained in its place.

    Args:
        cell: that was imported.
        project: in whose grid its pre-training is.

    Returns:
        Whether DVC knows now: not in a project without it, or whose dvc.yaml is not in step with the grid.
    """
    if not (project.root / DVC).is_dir():
        return False
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet", f"pretrain@{cell.pretrain_cell.name}"]
    said = subprocess.run(command, cwd=project.root, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    return said.returncode == 0


def _target(project: Project) -> Target:
    """What adapters are imported for."""
    return Target.of(project.output("prepare"), project.output("backbone"))


def _place(project: Project, cell: Cell, inputs: Sequence[Path], *, overwrite: bool) -> Path:
    """The folder of a cell's pre-training, to which nothing of what is read belongs."""
    out = project.output("pretrain", cell.pretrain_cell.name)
    for path in inputs:
        require_apart(out, path)
    if out.exists() and not overwrite:
        raise ArtifactError(f"{out}: there is a pre-training of this cell; choose another --seed, or --replace it")
    return out


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
