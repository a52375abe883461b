"""`mhrctl export` writes adapters as other libraries read them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.options import (
    HERE,
    CellChoice,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    ProjectOption,
    SeedOption,
    VariantOption,
    named_cell,
    open_project,
    quieten,
)
from mhrctl.errors import ParamsError


class Target(StrEnum):
    """Adapters can be exported to these libraries."""

    PEFT = "peft"


class ExportStage(StrEnum):
    """Adapters of these stages can be exported."""

    PRETRAIN = "pretrain"
    AVERAGE = "average"
    ADAPT = "adapt"


def export(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    stage: Annotated[ExportStage, typer.Option("--stage", help="Whose adapters.")] = ExportStage.ADAPT,
    task: Annotated[list[str], typer.Option("--task", help="Of this task only; repeatable. [default: all]")] = [],
    to: Annotated[Target, typer.Option("--to", help="The library to export to.")] = Target.PEFT,
    merge: Annotated[bool, typer.Option("--merge", help="Fold the adapter into the weights: whole models.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write. [default: data/export/STAGE/CELL]")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Write adapters as PEFT folders, or merged into the backbone's weights."""
    where, settings = open_project(project)
    cell = named_cell(settings, CellChoice(method, heads, variant, seed, extra_steps))
    if stage is ExportStage.ADAPT and extra_steps:
        raise ParamsError("--extra-steps: such a cell is not adapted; export --stage pretrain")
    chosen = cell if stage is ExportStage.ADAPT or extra_steps else cell.pretrain_cell
    quieten()
    from mhrctl.tools.export import export as write

    folders = write(chosen, stage=stage.value, tasks=task, merge=merge, project=where, out=out)
    what = "merged model" if merge else f"{to.upper()} folder"
    if len(folders) == 1:
        display.done(f"wrote a {what} to {folders[0]}; its README.md shows how to load it")
        return
    into = folders[0].parent
    display.done(f"wrote {len(folders)} {what}s to {into}; each README.md shows how to load it")
