"""`mhrctl import` takes adapters of other libraries as a cell's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from mhrctl.config.methods import POOLED
from mhrctl.config.methods import method as lookup
from mhrctl.errors import ParamsError, unknown


def import_(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="What to import: a PEFT folder, a checkpoint of the paper's authors, or T-Few's (IA)3 file. Of a pool, PEFT"
            " folders, folders of them, ids of the hub (`owner/name@revision`), or a list of any (`.jsonl`).",
        ),
    ],
    pool: Annotated[
        bool, typer.Option("--pool", help="Take all LoRAs that are named as a pool, for soups, merges and routers.")
    ] = False,
    method: MethodOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: NamedCellOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a pre-training that is there already.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Take adapters of other libraries as the pre-training of a cell; without a method, a file says which it is."""
    if not pool and len(paths) > 1:
        raise ParamsError(f"{len(paths)} adapters: one becomes a cell; several become a pool with --pool")
    where, settings = open_project(project)
    quieten()
    from mhrctl.tools.import_ import import_adapter, import_pool, keep

    grid, heads = settings.params.grid, None
    if cell is not None:
        asked = named_cell(settings, CellChoice(method, variant=variant, seed=seed, name=cell))
        if asked.extra_steps or asked.trial:
            raise ParamsError(f"--cell {cell}: a pre-training has no extra steps and no trial; leave them out")
        method, variant, seed, heads = asked.method, asked.variant, asked.seed, asked.heads
    if variant is not None and variant not in (PLAIN, *grid.variants):
        raise ParamsError(f"--variant: {unknown('variant', variant, [PLAIN, *grid.variants])}")
    place: dict[str, Any] = {
        "variant": variant or PLAIN,
        "seed": grid.seeds[0] if seed is None else seed,
        "pretrain_seed": grid.pretrain_seed,
        "project": where,
        "overwrite": replace,
    }
    if pool:
        if method is not None and lookup(method).pretrain != POOLED:
            raise ParamsError(f"--method {method}: a pool is what {POOLED} pre-trains")
        imported, card = import_pool(paths, **place)
    else:
        imported, card = import_adapter(Path(paths[0]), method=method, heads=heads, **place)
    trained, counts = imported.pretrain_cell, card.facts.parameters
    display.done(
        f"wrote {where.output('pretrain', trained.name)}: {counts.multi_task:,} adapter and {counts.routing:,} routing"
        f" parameters; go on with `mhrctl adapt {imported.name}`"
    )
    if any(trained == each.pretrain_cell for each in grid_cells(settings.params)):
        if keep(imported, where):
            display.done(f"note: {trained.name} is in the grid, and DVC has it as pre-trained; `mhrctl run` goes on from it")
        else:
            display.done(
                f"note: {trained.name} is in the grid: `dvc repro` would pre-train it,"
                f" `dvc commit pretrain@{trained.name}` keeps this"
            )
