"""`mhrctl count` prints how many parameters each method trains on a backbone, without its weights."""

from __future__ import annotations

from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.completion import complete_size
from mhrctl.cli.json_ import JsonOption, print_json, table_record
from mhrctl.cli.options import quieten
from mhrctl.cli.report import Format, require_one_form
from mhrctl.errors import ParamsError


def count(
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            help="Model to count for: t5-small, -base, -large, -xl or -xxl (v1.1), a hub id, or a folder.",
            autocompletion=complete_size,
        ),
    ] = "t5-xl",
    layout: Annotated[
        list[str],
        typer.Option(
            "--layout",
            help="Layers with adapters: `full`, `light`, `attention`, or a regular expression; repeatable."
            " [default: full, and light if the backbone has it]",
        ),
    ] = [],
    heads: Annotated[list[int], typer.Option("--heads", min=1, help="Heads of mhr and its variants; repeatable.")] = [
        8,
        32,
        64,
    ],
    skills: Annotated[int, typer.Option(min=2, help="Number of skills, which the tasks share.")] = 8,
    rank: Annotated[int, typer.Option(min=1, help="Rank of a LoRA.")] = 1,
    tasks: Annotated[int, typer.Option(min=1, help="Number of training tasks.")] = 313,
    datasets: Annotated[int, typer.Option(min=1, help="Adapters that adapter_soup trains.")] = 38,
    form: Annotated[Format, typer.Option("--format", help="Form of the table.")] = Format.TERMINAL,
    as_json: JsonOption = False,
) -> None:
    """Print how many parameters each method trains, exactly, compared with the paper's Table 6."""
    require_one_form(form, as_json=as_json)
    quieten()
    from mhrctl.report.table import RENDERERS, rich_table
    from mhrctl.tools.count import Sizes
    from mhrctl.tools.count import count as count_all

    sizes = Sizes(skills=skills, rank=rank, tasks=tasks, datasets=datasets, heads=heads)
    try:
        tables = count_all(backbone, layout, sizes)
    except ValueError as error:
        raise ParamsError(f"--heads: {error}") from None
    if as_json:
        print_json({"backbone": backbone, "tables": list(map(table_record, tables))})
        return
    for table in tables:
        if form is Format.TERMINAL:
            display.out.print(rich_table(table))
        else:
            display.echo(RENDERERS[form](table))
