"""`mhrctl check`: prove that params, grid and paths agree before anything is run."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from mhrctl.cells import Cell, grid_cells
from mhrctl.cli import display
from mhrctl.cli.options import (
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    ProjectOption,
    RecipeOption,
    SeedOption,
    SetOption,
    VariantOption,
    named_cell,
    open_project,
)
from mhrctl.errors import ArtifactError
from mhrctl.grid import differences, expand
from mhrctl.resolve import CELL_SECTIONS, Settings, resolve_cell, sources


def check(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    project: ProjectOption = Path(),
    set_: SetOption = [],
    recipe: RecipeOption = None,
) -> None:
    """Check params.yaml and the grid, and show what would run; with `--method`, every setting of one cell."""
    where, settings = open_project(project, set_, recipe)
    if method is not None:
        display.out.print(_settings_table(settings, named_cell(settings, method, heads, variant, seed, extra_steps)))
        return
    cells = grid_cells(settings.params)
    shown = Table(title=f"{len(cells)} cells", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("cell", no_wrap=True)
    for column in ("starts from", "trains", "pretrain\nsteps x batch", "adapt\nsteps x batch", "scores"):
        shown.add_column(column, overflow="fold")
    for cell in cells:
        resolved = resolve_cell(settings, cell)
        stage, start = cell.origin
        shown.add_row(
            cell.name,
            f"{stage}/{start.name}",
            "on all tasks" if cell.extra_steps else cell.row.trains,
            f"{resolved.pretrain.steps} x {resolved.pretrain.batch_size * resolved.pretrain.accumulation}",
            "" if cell.extra_steps else f"{resolved.adapt.steps} x {resolved.adapt.batch_size * resolved.adapt.accumulation}",
            "yes" if where.scores(cell.name).exists() else "",
        )
    display.out.print(shown)
    if recipe or set_:
        return  # the files in data/cells are of params.yaml alone
    if changes := differences(expand(settings, where), where):
        raise ArtifactError(f"{where.cell_index.parent}: {len(changes)} files not in step; run `mhrctl grid sync`")


def _settings_table(settings: Settings, cell: Cell) -> Table:
    """Every setting of a cell and where it comes from."""
    resolved = resolve_cell(settings, cell)
    shown = Table(title=f"cell {cell.name}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("setting", "value", "from"):
        shown.add_column(column, no_wrap=column == "setting")
    for section in CELL_SECTIONS:
        origin = sources(settings, cell, section)
        for key, value in getattr(resolved, section).model_dump().items():
            shown.add_row(f"{section}.{key}", str(value), origin.get(key, "default"))
        shown.add_section()
    return shown
