"""`mhrctl report` sets the paper's tables and figures beside our own, from the scores at hand."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import replacing, write_text
from mhrctl.cli import display
from mhrctl.cli.options import HERE, ProjectOption, SetOption, open_project
from mhrctl.cli.threads import prepare_threads
from mhrctl.config.cells import grid_cells
from mhrctl.errors import ArtifactError, ParamsError

if TYPE_CHECKING:
    from mhrctl.config.sections import ReportParams
    from mhrctl.report.results import Results
    from mhrctl.report.table import Table
    from mhrctl.report.trials import Choice


SHOWN = (("evaluate", "*.json"), ("pretrain", "*.csv"))
"""Of `data/metrics`: without any of these a page has nothing to show."""


class Format(StrEnum):
    """How a table is printed."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


def report(
    tables: Annotated[list[int], typer.Option("--table", help="Print a table of the paper, 1 to 6; repeatable.")] = [],
    figures: Annotated[
        list[int], typer.Option("--figure", help="Draw a figure of the paper, 2, 3 or 4, as PNG and SVG; repeatable.")
    ] = [],
    compare: Annotated[
        list[str],
        typer.Option(
            help="Method to compare, as `mhr-h8`, or `mhr` if there is but one, or `all`: the difference, with its interval;"
            " repeatable."
        ),
    ] = [],
    to: Annotated[str | None, typer.Option(help="The method that --compare compares to. [default: lora, or the first]")] = None,
    html: Annotated[bool, typer.Option("--html", help="Write everything into one HTML file.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of figures and HTML; data/report if none is named.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Form of printed tables.")] = Format.TERMINAL,
    project: ProjectOption = HERE,
    set_: SetOption = [],
) -> None:
    """Write the report into data/report and print the results, or print tables and differences, draw figures, write HTML."""
    stage_runs = not (tables or figures or compare or html)
    where, settings = open_project(project, set_, reads=["report" if stage_runs else "report.trials", "grid"])
    if to and not compare:
        raise ParamsError(f"--to {to}: name what is compared to it with --compare, or --compare all")
    if out and not (figures or html):
        raise ParamsError(f"--out {out}: it is for --figure and --html")
    expected = [cell.name for cell in grid_cells(settings.params)]
    if stage_runs:
        _print_tables([_write_stage(where, settings.params.report, expected)], form)
        return
    from mhrctl.report.differences import differences_table
    from mhrctl.report.results import read_results
    from mhrctl.report.tables import build_table

    trials = settings.params.report.trials
    results = read_results(where.metrics, trials)
    printed = [build_table(number, results, expected) for number in tables]
    if compare:
        printed.append(differences_table(results, against=to, labels=compare))
    _print_tables(printed, form)
    folder = out or where.output("report")
    if figures:
        _draw(where, figures, folder, results)
    if html:
        _write_html(where, expected, folder, trials)


def _write_stage(where: Project, params: ReportParams, expected: Sequence[str]) -> Table:
    prepare_threads(None, "cpu")
    from mhrctl.stages.report import report as stage

    out = where.output("report")
    out.mkdir(parents=True, exist_ok=True)
    ours = stage(where.metrics, out, tables=params.tables, expected_cells=expected, trials=params.trials)
    display.done(f"wrote {out}")
    return ours


def _print_tables(tables: Sequence[Table], form: Format) -> None:
    from mhrctl.report.table import RENDERERS, rich_table

    for number, table in enumerate(tables):
        if number:
            display.echo("")
        if form is Format.TERMINAL:
            display.out.print(rich_table(table))
        else:
            display.echo(RENDERERS[form](table))


def _draw(where: Project, numbers: Sequence[int], folder: Path, results: Results) -> None:
    from mhrctl.report.figures import draw_figure
    from mhrctl.report.figures.style import FORMATS

    drawings = {number: draw_figure(number, results, where.metrics) for number in numbers}
    for number, drawing in drawings.items():
        for form in FORMATS:
            with replacing(folder / f"figure{number}.{form}") as aside:
                aside.write_bytes(drawing.rendered(form))
        for text in drawing.missing:
            display.done(f"figure {number}: {text}")
        display.done(f"wrote {folder / f'figure{number}'}.{{{','.join(FORMATS)}}}")


def _write_html(where: Project, expected: Sequence[str], folder: Path, trials: Choice) -> None:
    from mhrctl.report.html import html_report

    if not any(any((where.metrics / stage).glob(kind)) for stage, kind in SHOWN):
        raise ArtifactError(f"nothing to report yet: no scores and no training logs in {where.metrics}; run `mhrctl run`")
    text = html_report(where.data, expected, trials)
    write_text(folder / "report.html", text)
    display.done(f"wrote {folder / 'report.html'}")
