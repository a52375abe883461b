"""`mhrctl check`: prove that params, grid and paths agree before anything is run."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from mhrctl.cli import display
from mhrctl.cli.options import ProjectOption, SetOption, open_project
from mhrctl.errors import ArtifactError
from mhrctl.grid import differences, expand, start_folder
from mhrctl.params import grid_cells, resolve_cell


def check(project: ProjectOption = Path(), set_: SetOption = []) -> None:
    """Check params.yaml and the grid, and show what would run."""
    where, params = open_project(project, set_)
    shown = Table(title=f"{len(grid_cells(params))} cells", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("cell", no_wrap=True)
    for column in ("adapts from", "trains", "pretrain\nsteps x batch", "adapt\nsteps x batch", "scores"):
        shown.add_column(column)
    for cell in grid_cells(params):
        resolved = resolve_cell(params, cell)
        shown.add_row(
            cell.name,
            start_folder(cell),
            cell.row.trains,
            f"{resolved.pretrain.steps} x {resolved.pretrain.batch_size * resolved.pretrain.accumulation}",
            f"{resolved.adapt.steps} x {resolved.adapt.batch_size * resolved.adapt.accumulation}",
            "yes" if where.scores(cell.name).exists() else "",
        )
    display.out.print(shown)
    if changes := differences(expand(params, where), where):
        raise ArtifactError(f"{where.cell_index.parent}: {len(changes)} files not in step; run `mhrctl grid sync`")
