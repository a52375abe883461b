"""A table is neutral, and has several renderings."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from mhrctl.errors import printable

TERMINAL = 80
"""Characters to a line."""
MINUS = re.compile(r"(?<!\S)-(?=\d)")
MARKDOWN = re.compile(r"[\\*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would not show as it is; an underscore within a word is one to it as well."""
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What begins a formula in a spreadsheet: the last four are the wide forms of the others."""
NUMBER = re.compile(r"-|[+-][\d.,]+%?( to [+-][\d.,]+)?")
"""What begins with a sign and is no formula."""
LATEX_ESCAPES = str.maketrans(
    {char: rf"\{char}" for char in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "]": "{]}", "*": "{*}"}  # after the end of a row these would be LaTeX's own
)


@dataclass(frozen=True)
class Table:
    """A table holds strings, which are shown as they are in every rendering: none of them is markup, a formula or a code.

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
    title = Text(printable(table.title), style="table.title")
    shown = RichTable(padding=(0, apart - 1, 0, 0), pad_edge=False, title=title, box=box.SIMPLE_HEAD)
    for number, column in enumerate(table.columns):
        head = Text(printable(column, keep="\n"))
        shown.add_column(head, justify="right" if number else "left", no_wrap=not number, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    return Group(shown, *(Text(printable(note)) for note in table.notes))


def markdown(table: Table) -> str:
    """Render as Markdown for GitHub."""
    rule = "| " + " | ".join(["---", *["---:"] * (len(table.columns) - 1)]) + " |"
    lines = [f"**{_marked(table.title)}**", "", _piped(table.columns), rule, *map(_piped, table.rows)]
    return "\n".join([*lines, *(f"\n{_marked(note, code=True)}" for note in table.notes)]) + "\n"


def comma_separated(table: Table) -> str:
    """Render as comma-separated values, with title and notes left out.

    A text that a spreadsheet would take for a formula begins with an apostrophe, as OWASP advises.
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([*map(_no_formula, row)] for row in [table.columns, *table.rows])
    return stream.getvalue()


def _no_formula(cell: str) -> str:
    text = printable(cell)
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def latex(table: Table) -> str:
    """Render as a booktabs table."""
    lines = [table.columns, *table.rows]
    rows = [" & ".join(map(_latex_cell, line)) + r" \\" for line in lines]
    body = [rows[0], r"\midrule", *rows[1:]]
    notes = [f"% {printable(note)}" for note in table.notes]
    head = [r"\begin{table}", rf"\caption{{{printable(table.title).translate(LATEX_ESCAPES)}}}"]
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
    return MINUS.sub("$-$", printable(cell).translate(LATEX_ESCAPES))


def _width(table: Table, gap: int) -> int:
    """Of the table in a terminal, with a space at both ends."""
    lines = [[part for text in column for part in text.split("\n")] for column in zip(table.columns, *table.rows, strict=True)]
    return 2 + sum(max(map(cell_len, column)) for column in lines) + gap * (len(lines) - 1)


RENDERERS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_marked, cells)) + " |"


def _marked(text: str, *, code: bool = False) -> str:
    """A text in Markdown; of notes, with the code that they have in it."""
    escaped = MARKDOWN.sub(r"\\\g<0>", printable(text))
    return escaped if code else escaped.replace("`", r"\`")
