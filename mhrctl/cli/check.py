"""`mhrctl check`: prove that params, grid and paths agree before anything is run."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from mhrctl.cli import display
from mhrctl.cli.options import ProjectOption, SetOption, open_project
from mhrctl.errors import ArtifactError
from mhrctl.grid import differences, expand
from mhrctl.params import grid_cells, resolve_cell


def check(project: ProjectOption = Path(), set_: SetOption = []) -> None:  # noqa: B006 - Typer copies it
    """Check params.yaml and the grid, and show what would run."""
    where, params = open_project(project, set_)
    shown = Table(title=f"{len(grid_cells(params))} cells")
    for column in (
        "cell",
        "pre-training",
        "starts from",
        "trains",
        "pretrain steps x batch",
        "adapt steps x batch",
        "done",
    ):
        shown.add_column(column)
    for cell in grid_cells(params):
        resolved = resolve_cell(params, cell)
        shown.add_row(
            cell.name,
            cell.pretrain_cell.name,
            cell.row.start,
            cell.row.trains,
            f"{resolved.pretrain.steps} x {resolved.pretrain.batch_size * resolved.pretrain.accumulation}",
            f"{resolved.adapt.steps} x {resolved.adapt.batch_size * resolved.adapt.accumulation}",
            "yes" if where.scores(cell.name).exists() else "",
        )
    display.out.print(shown)
    if changes := differences(expand(params, where), where):
        raise ArtifactError(f"{where.cell_index.parent}: {len(changes)} files not in step; run `mhrctl grid sync`")
