"""`mhrctl import` takes adapters of other libraries as a cell's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellChoice,
    MethodOption,
    NamedCellOption,
    SeedOption,
    VariantOption,
    named_cell,
)
from mhrctl.cli.options import (
    HERE,
    ProjectOption,
    open_project,
    quieten,
)
from mhrctl.config.cells import grid_cells
from mhrctl.config.grid import PLAIN
from mhrctl.errors import ParamsError, unknown


def import_(
    path: Annotated[
        Path,
        typer.Argument(help="What to import: a PEFT folder, a checkpoint of the paper's authors, or T-Few's (IA)3 file."),
    ],
    method: MethodOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: NamedCellOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a pre-training that is there already.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Take an adapter of another library as the pre-training of a cell; without a method, the file says which it is."""
    where, settings = open_project(project)
    quieten()
    from mhrctl.tools.import_ import import_adapter

    grid, heads = settings.params.grid, None
    if cell is not None:
        asked = named_cell(settings, CellChoice(method, variant=variant, seed=seed, name=cell))
        if asked.extra_steps or asked.trial:
            raise ParamsError(f"--cell {cell}: a pre-training has no extra steps and no trial; leave them out")
        method, variant, seed, heads = asked.method, asked.variant, asked.seed, asked.heads
    if variant is not None and variant not in (PLAIN, *grid.variants):
        raise ParamsError(f"--variant: {unknown('variant', variant, [PLAIN, *grid.variants])}")
    imported, card = import_adapter(
        path,
        method=method,
        variant=variant or PLAIN,
        seed=grid.seeds[0] if seed is None else seed,
        pretrain_seed=grid.pretrain_seed,
        project=where,
        heads=heads,
        replace=replace,
    )
    trained, counts = imported.pretrain_cell, card.facts.parameters
    display.done(
        f"wrote {where.output('pretrain', trained.name)}: {counts.multi_task:,} adapter and {counts.routing:,} routing"
        f" parameters; go on with `mhrctl adapt {imported.name}`"
    )
    if any(trained == each.pretrain_cell for each in grid_cells(settings.params)):
        display.done(
            f"note: {trained.name} is in the grid: `dvc repro` would pre-train it,"
            f" `dvc commit pretrain@{trained.name}` keeps this"
        )
