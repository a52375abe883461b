"""`mhrctl report` sets the paper's tables and figures beside our own, from the scores at hand."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import replacing, write_text
from mhrctl.cli import display
from mhrctl.cli.completion import complete_label, complete_labels
from mhrctl.cli.json_ import JsonOption, print_json, table_record
from mhrctl.cli.options import HERE, ProjectOption, SetOption, open_project
from mhrctl.cli.threads import prepare_threads
from mhrctl.config.cells import grid_cells
from mhrctl.config.methods import METHODS
from mhrctl.errors import ArtifactError, ParamsError, unknown

if TYPE_CHECKING:
    from mhrctl.config.sections import ReportParams
    from mhrctl.report.claims import Judgement
    from mhrctl.report.differences import Difference
    from mhrctl.report.figures.style import Drawing
    from mhrctl.report.results import Group, Results
    from mhrctl.report.table import Table
    from mhrctl.report.tables import TableName
    from mhrctl.report.trials import Choice


SHOWN = (("evaluate", "*.json"), ("pretrain", "*.csv"))
"""Of `data/metrics`: without any of these a page has nothing to show."""


READ = ["report.trials", "report.margin", "grid"]
"""What is read where nothing but tables, figures or HTML is asked for."""
CLAIMS = "claims"
"""The figure that is not of the paper."""


class Format(StrEnum):
    """How a table is printed."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


def report(
    tables: Annotated[
        list[str],
        typer.Option(
            "--table",
            metavar="TABLE",
            help="Print a table of the paper, 1 to 6, or `pool`: adapters trained apart or together; repeatable.",
        ),
    ] = [],
    figures: Annotated[
        list[str],
        typer.Option(
            "--figure",
            metavar="FIGURE",
            help="Draw a figure of the paper, 2, 3 or 4, or `claims`: whether they hold, as PNG and SVG; repeatable.",
        ),
    ] = [],
    compare: Annotated[
        list[str],
        typer.Option(
            help="Method to compare, as `mhr-h8`, or `mhr` if there is but one, or `all`: the difference, with its interval;"
            " repeatable.",
            autocompletion=complete_labels,
        ),
    ] = [],
    to: Annotated[
        str | None,
        typer.Option(
            help="The method that --compare compares to. [default: lora, or the first]", autocompletion=complete_label
        ),
    ] = None,
    harness: Annotated[
        bool, typer.Option("--harness", help="Print what lm-evaluation-harness said of the cells (`evaluate --harness`).")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="Print whether the paper's claims hold here, and what could have been shown.")
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Write everything into one HTML file.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of figures and HTML; data/report if none is named.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Form of printed tables.")] = Format.TERMINAL,
    as_json: JsonOption = False,
    project: ProjectOption = HERE,
    set_: SetOption = [],
) -> None:
    """Write the report into data/report and print the results, or print tables and differences, draw figures, write HTML."""
    stage_runs = not (tables or figures or compare or harness or claims or html)
    require_one_form(form, as_json=as_json)
    where, settings = open_project(project, set_, reads=["report", "grid"] if stage_runs else READ)
    if to and not compare:
        raise ParamsError(f"--to {to}: name what is compared to it with --compare, or --compare all")
    if out and not (figures or html):
        raise ParamsError(f"--out {out}: it is for --figure and --html")
    expected = [cell.name for cell in grid_cells(settings.params)]
    if stage_runs:
        ours = _write_stage(where, settings.params.report, expected)
        if as_json:
            print_json({**_results_record(where, settings.params.report.trials, expected), "notes": ours.notes})
        else:
            _print_tables([ours], form)
        return
    from mhrctl.report.differences import differences_table
    from mhrctl.report.results import read_results
    from mhrctl.report.tables import build_table
    from mhrctl.report.tables.claims import claims_table

    trials = settings.params.report.trials
    results = read_results(where.metrics, trials)
    printed = [build_table(_table_name(name), results, expected) for name in tables]
    if compare:
        printed.append(differences_table(results, against=to, labels=compare))
    printed += [_harness(where)] if harness else []
    margin = settings.params.report.margin
    printed += [claims_table(_judged(where, results, margin), margin=margin, metric=results.metric_name)] if claims else []
    if as_json:
        print_json({"tables": list(map(table_record, printed))})
    else:
        _print_tables(printed, form)
    folder = out or where.output("report")
    if figures:
        _draw(where, figures, folder, results, margin)
    if html:
        _write_html(where, expected, folder, settings.params.report)


def _table_name(text: str) -> TableName:
    """A table's name as it is typed.

    Raises:
        ParamsError: if there is none.
    """
    from mhrctl.report.tables import TABLES

    names = {str(name): name for name in TABLES}
    if text not in names:
        raise ParamsError(f"--table: {unknown('table', text, names)}")
    return names[text]


def require_one_form(form: Format, *, as_json: bool) -> None:
    """Refuse another form of tables beside JSON.

    Raises:
        ParamsError: if there is one.
    """
    if as_json and form is not Format.TERMINAL:
        raise ParamsError(f"--format {form}: --json is a form of its own; leave one out")


def _results_record(where: Project, trials: Choice, expected: Sequence[str]) -> dict[str, Any]:
    """The results as JSON has them: what the printed table is made from."""
    from mhrctl.report.differences import baseline_of, compare_all
    from mhrctl.report.results import read_results

    results = read_results(where.metrics, trials)
    baseline, compared = baseline_of(results), compare_all(results)
    return {
        "suite": results.suite,
        "backbone": results.backbone,
        "metric": results.metric,
        "test_tasks": sorted(results.tasks),
        "baseline": baseline.label if baseline else None,
        "without_scores": results.lacking(expected),
        "methods": [_group_record(group, results.recorded, compared.get(group.label)) for group in results.groups],
        "written": where.output("report"),
    }


def _group_record(group: Group, metrics: Sequence[str], difference: Difference | None) -> dict[str, Any]:
    from mhrctl.evaluation.scores import PHASES, SCORE

    means = {
        phase: {SCORE: group.score(phase)} | {name: group.mean(phase, name) for name in metrics}
        for phase in PHASES
        if group.score(phase)
    }
    has_heads = group.method in METHODS and METHODS[group.method].multi_head
    return {
        "label": group.label,
        "method": group.method,
        "heads": group.heads if has_heads else None,
        "variant": group.variant,
        "extra_steps": group.extra_steps,
        "cells": [{"cell": name, "seed": cell.seed, "trial": cell.trial or None} for name, cell in group.cells.items()],
        **{phase: {score: mean and mean._asdict() for score, mean in means.get(phase, {}).items()} or None for phase in PHASES},
        "difference": _difference_record(difference) if difference and not group.extra_steps else None,
        "trained_on_all": group.first.parameters.multi_task,
        "trained_per_task": group.first.parameters.adaptation,
    }


def _difference_record(difference: Difference) -> dict[str, Any]:
    interval = difference.interval if difference.has_interval else None
    return {
        "mean": difference.interval.mean,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "chance_of_no_gain": interval and interval.not_above,
        "verdict": difference.verdict,
        "tasks": difference.tasks,
        "seeds": difference.seeds,
    }


def _harness(where: Project) -> Table:
    from mhrctl.report.tables.harness import harness_table

    return harness_table(where)


def _judged(where: Project, results: Results, margin: float) -> Judgement:
    from mhrctl.report.claims import judge
    from mhrctl.report.logs import read_logs

    return judge(results, read_logs(where.metrics / "pretrain"), margin=margin)


def _write_stage(where: Project, params: ReportParams, expected: Sequence[str]) -> Table:
    prepare_threads(None, "cpu")
    from mhrctl.stages.report import report as stage

    out = where.output("report")
    out.mkdir(parents=True, exist_ok=True)
    margin = params.margin if params.claims else None
    ours = stage(where.metrics, out, tables=params.tables, expected_cells=expected, trials=params.trials, margin=margin)
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


def _draw(where: Project, names: Sequence[str], folder: Path, results: Results, margin: float) -> None:
    from mhrctl.report.figures import FIGURES, draw_figure
    from mhrctl.report.figures.claims import plan_claims
    from mhrctl.report.figures.style import FORMATS

    numbers = {str(number): number for number in FIGURES}
    drawings: dict[str, Drawing] = {}
    for name in names:
        if name == CLAIMS:
            plan = plan_claims(_judged(where, results, margin), margin=margin, metric=results.metric_name)
            drawings[CLAIMS] = plan.drawing()
        elif name in numbers:
            drawings[f"figure{name}"] = draw_figure(numbers[name], results, where.metrics)
        else:
            raise ParamsError(f"--figure: {unknown('figure', name, [*numbers, CLAIMS])}")
    for called, drawing in drawings.items():
        for form in FORMATS:
            with replacing(folder / f"{called}.{form}") as aside:
                aside.write_bytes(drawing.rendered(form))
        for text in drawing.missing:
            display.done(f"{called.replace('figure', 'figure ')}: {text}")
        display.done(f"wrote {folder / called}.{{{','.join(FORMATS)}}}")


def _write_html(where: Project, expected: Sequence[str], folder: Path, params: ReportParams) -> None:
    from mhrctl.report.html import html_report

    if not any(any((where.metrics / stage).glob(kind)) for stage, kind in SHOWN):
        raise ArtifactError(f"nothing to report yet: no scores and no training logs in {where.metrics}; run `mhrctl run`")
    text = html_report(where.data, expected, params.trials, margin=params.margin)
    write_text(folder / "report.html", text)
    display.done(f"wrote {folder / 'report.html'}")
