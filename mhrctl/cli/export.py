"""`mhrctl export` writes adapters as other libraries read them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    NamedCellOption,
    SeedOption,
    VariantOption,
    named_cell,
    one_name,
)
from mhrctl.cli.options import (
    HERE,
    ProjectOption,
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
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: NamedCellOption = None,
    stage: Annotated[ExportStage, typer.Option("--stage", help="Stage whose adapters are written.")] = ExportStage.ADAPT,
    task: Annotated[
        list[str], typer.Option("--task", help="Write the adapter of this task only; repeatable. [default: all]")
    ] = [],
    to: Annotated[Target, typer.Option("--to", help="Library to export to.")] = Target.PEFT,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write whole models, with the adapter merged into the weights.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: data/export/STAGE/CELL]")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Write adapters as PEFT folders, or merged into the backbone's weights."""
    where, settings = open_project(project)
    asked = CellChoice(method, heads, variant, seed, extra_steps, name=one_name(name, cell))
    point = named_cell(settings, asked)
    if stage is ExportStage.ADAPT and point.extra_steps:
        raise ParamsError("--extra-steps: such a cell is not adapted; export --stage pretrain")
    chosen = point if stage is ExportStage.ADAPT or point.extra_steps else point.pretrain_cell
    quieten()
    from mhrctl.tools.export import export as write

    folders = write(chosen, stage=stage.value, tasks=task, merge=merge, project=where, out=out)
    what = "merged model" if merge else f"{to.upper()} folder"
    if len(folders) == 1:
        display.done(f"wrote a {what} to {folders[0]}; its README.md shows how to load it")
        return
    into = folders[0].parent
    display.done(f"wrote {len(folders)} {what}s to {into}; each README.md shows how to load it")
