"""A table is neutral, and has several renderings."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable

TERMINAL = 80
"""Characters to a line."""
MINUS = re.compile(r"(?<!\S)-(?=\d)")
LATEX_ESCAPES = str.maketrans(
    {char: rf"\{char}" for char in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
)


@dataclass(frozen=True)
class Table:
    """A table holds strings.

    Attributes:
        title: of the table.
        columns: headings, which may have several lines; the first column is text, the others are numbers.
        rows: cells.
        notes: sentences that stand under the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def rich_table(table: Table) -> Group:
    """Render for a terminal: columns are two spaces apart, or one if the table would be wider than 80 characters."""
    apart = 1 if _width(table, gap=2) > TERMINAL else 2
    shown = RichTable(padding=(0, apart - 1, 0, 0), pad_edge=False, title=escape(table.title), box=box.SIMPLE_HEAD)
    for number, column in enumerate(table.columns):
        shown.add_column(escape(column), justify="right" if number else "left", no_wrap=not number, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return Group(shown, *map(escape, table.notes))


def markdown(table: Table) -> str:
    """Render as Markdown for GitHub."""
    lines = [f"**{table.title}**", "", _piped(_one_line(table.columns)), _piped(["---", *["---:"] * (len(table.columns) - 1)])]
    lines += [_piped(row) for row in table.rows]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def comma_separated(table: Table) -> str:
    """Render as comma-separated values, with title and notes left out."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([_one_line(table.columns), *table.rows])
    return stream.getvalue()


def latex(table: Table) -> str:
    """Render as a booktabs table."""
    lines = [_one_line(table.columns), *table.rows]
    rows = [" & ".join(map(_latex_cell, line)) + r" \\" for line in lines]
    body = [rows[0], r"\midrule", *rows[1:]]
    notes = [f"% {note}" for note in table.notes]
    head = [r"\begin{table}", rf"\caption{{{table.title.translate(LATEX_ESCAPES)}}}"]
    columns = "l" + "r" * (len(table.columns) - 1)
    return (
        "\n".join(
            [
                *head,
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *notes,
                r"\end{table}",
            ]
        )
        + "\n"
    )


def _latex_cell(cell: str) -> str:
    return MINUS.sub("$-$", cell.translate(LATEX_ESCAPES))


def _width(table: Table, gap: int) -> int:
    """Of the table in a terminal, with a space at both ends."""
    lines = [[part for text in column for part in text.split("\n")] for column in zip(table.columns, *table.rows, strict=True)]
    return 2 + sum(max(map(len, column)) for column in lines) + gap * (len(lines) - 1)


RENDERERS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def _one_line(columns: Sequence[str]) -> list[str]:
    return [column.replace("\n", " ") for column in columns]


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
