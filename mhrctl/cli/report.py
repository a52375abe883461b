"""`mhrctl report`: the paper's tables beside our own, from the scores at hand."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cells import grid_cells
from mhrctl.cli import display
from mhrctl.cli.options import ProjectOption, SetOption, open_project


class Format(StrEnum):
    """How a table is printed."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


def report(
    table: Annotated[int | None, typer.Option("--table", help="Print one table of the paper: 1, 2, 5 or 6.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Of the printed table.")] = Format.TERMINAL,
    project: ProjectOption = Path(),
    set_: SetOption = [],
) -> None:
    """Write the report into data/report, or print one table."""
    where, settings = open_project(project, set_)
    from mhrctl.paper.table import RENDERERS, rich_table
    from mhrctl.stages.report import build_table
    from mhrctl.stages.report import report as stage

    expected = [cell.name for cell in grid_cells(settings.params)]
    if table is None:
        out = where.output("report")
        out.mkdir(parents=True, exist_ok=True)
        stage(where.metrics, out, tables=settings.params.report.tables, expected_cells=expected)
        display.done(f"wrote {out}")
        return
    built = build_table(table, where.metrics, expected)
    if form is Format.TERMINAL:
        display.out.print(rich_table(built))
    else:
        typer.echo(RENDERERS[form](built), nl=False)
