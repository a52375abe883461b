"""It is said of a cell how far it is: which of its outputs are there, and are what their stages would write now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import CARD, Project
from mhrctl.artifacts.provenance import Provenance
from mhrctl.config.cells import LOWERED, CellParams, Output
from mhrctl.errors import ArtifactError

State = Literal["missing", "out of date", "up to date"]
Made = Callable[[], Provenance]


def states_of(params: CellParams, project: Project, *, threads: int | None = None) -> dict[str, State]:
    """Say for each stage of a cell, in their order, whether its output is there and up to date.

    Args:
        params: the cell, with its settings.
        project: with the outputs.
        threads: CPU threads that outputs would be computed with; None for any number.

    Returns:
        {stage: state}: of pre-training, of the average where the cell starts from it, of adaptation unless the cell has extra
        steps, and of evaluation.
    """
    cell = params.cell
    prepared, frozen, index = (project.output(stage) for stage in ("prepare", "backbone", "index"))
    stage, origin = cell.start
    start = project.output(stage, origin.name)
    adapted = None if cell.extra_steps else project.output("adapt", cell.name)
    first = cell if cell.extra_steps else cell.pretrain_cell
    pretrained = project.output("pretrain", first.name)
    under = {each: _folder(params.under(each), project) for each in LOWERED}
    went_on = project.output(cell.origin[0], cell.origin[1].name) if cell.extra_steps else None

    def averaged() -> Provenance:
        card = read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {first.name}", cell=first)
        return provenance.of_average(pretrained, card)

    stages: dict[str, tuple[Path, list[Path], Made]] = {
        "pretrain": (
            pretrained,
            [project.training_log(first.name)],
            lambda: provenance.of_pretrain(
                first,
                params.pretrain,
                prepared=prepared,
                backbone=frozen,
                start=went_on,
                under=under["pretrain"],
                pool=_folder(params.pool(), project),
                root=project.root,
            ),
        )
    }
    if stage == "average":
        stages["average"] = start, [], averaged
    if adapted:
        stages["adapt"] = (
            adapted,
            [],
            lambda: provenance.of_adapt(
                cell,
                params.adapt,
                prepared=prepared,
                backbone=frozen,
                start=start,
                index=index,
                root=project.root,
                under=under["adapt"],
            ),
        )
    stages["evaluate"] = (
        project.output("evaluate", cell.name),
        [project.scores(cell.name)],
        lambda: provenance.of_evaluate(
            cell,
            params.evaluate,
            prepared=prepared,
            backbone=frozen,
            start=start,
            adapted=adapted,
            under=under["evaluate"],
        ),
    )
    return {name: _state(*of_stage, threads) for name, of_stage in stages.items()}


def _folder(output: Output | None, project: Project) -> Path | None:
    return project.output(output[0], output[1].name) if output else None


def _state(folder: Path, beside: list[Path], made: Made, threads: int | None) -> State:
    if not (folder / CARD).exists():
        return "missing"
    try:
        return "up to date" if made().is_up_to_date(folder, *beside, threads=threads) else "out of date"
    except ArtifactError:  # of what it was made from, which is no longer there
        return "out of date"
