"""`mhrctl import` takes adapters of other libraries as a cell's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.options import (
    HERE,
    MethodOption,
    ProjectOption,
    SeedOption,
    VariantOption,
    open_project,
    quieten,
)
from mhrctl.config.cells import grid_cells
from mhrctl.config.grid import PLAIN
from mhrctl.errors import ParamsError, unknown


def import_(
    path: Annotated[Path, typer.Argument(help="A PEFT folder, a checkpoint of the paper's authors, or T-Few's (IA)3 file.")],
    method: MethodOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a pre-training that is there already.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Take an adapter of another library as the pre-training of a cell."""
    where, settings = open_project(project)
    quieten()
    from mhrctl.tools.import_ import import_adapter

    grid = settings.params.grid
    if variant is not None and variant not in (PLAIN, *grid.variants):
        raise ParamsError(f"--variant: {unknown('variant', variant, [PLAIN, *grid.variants])}")
    cell, card = import_adapter(
        path,
        method=method,
        variant=variant or PLAIN,
        seed=grid.seeds[0] if seed is None else seed,
        pretrain_seed=grid.pretrain_seed,
        project=where,
        replace=replace,
    )
    trained, counts = cell.pretrain_cell, card.facts.parameters
    display.done(
        f"wrote {where.output('pretrain', trained.name)}: {counts.multi_task:,} adapter and {counts.routing:,} routing"
        f" parameters; go on with `mhrctl adapt {cell.options}`"
    )
    if any(trained == cell.pretrain_cell for cell in grid_cells(settings.params)):
        display.done(
            f"note: {trained.name} is in the grid: `dvc repro` would pre-train it,"
            f" `dvc commit pretrain@{trained.name}` keeps this"
        )
