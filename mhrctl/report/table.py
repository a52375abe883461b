"""A table is neutral, and has several renderings."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from mhrctl.errors import printable

NOTHING = "-"
"""Of a cell behind the first: CSV leaves it empty."""
TERMINAL = 80
"""Characters to a line."""
MINUS = re.compile(r"(?<!\S)-(?=\d)")
MARKDOWN = re.compile(r"[\\*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would not show as it is; an underscore within a word is one to it as well."""
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What begins a formula in a spreadsheet: the last four are the wide forms of the others."""
NUMBER = re.compile(r"-|[+-][\d.,]+%?( to [+-][\d.,]+)?")
"""What begins with a sign and is no formula."""
DIGITS = 4
"""Of a number in CSV, behind the point."""
LATEX_ESCAPES = str.maketrans(
    {char: rf"\{char}" for char in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "]": "{]}", "*": "{*}"}  # after the end of a row these would be LaTeX's own
)


class Value(str):
    """A value is a cell that stands for numbers, to which CSV gives columns of their own.

    Attributes:
        parts: {what the heading of a number's column has behind the table's: number}; None is a number that there is not.
    """

    __slots__ = ("parts",)

    parts: Mapping[str, float | None]

    def __new__(cls, text: str, parts: Mapping[str, float | None]) -> Self:
        """Make the text of numbers."""
        value = super().__new__(cls, text)
        value.parts = parts
        return value


@dataclass(frozen=True)
class Table:
    """A table holds strings, which are shown as they are in every rendering: none of them is markup, a formula or a code.

    Attributes:
        title: of the table.
        columns: headings, which may have several lines; the first column is text, the others are numbers.
        rows: cells; those that are values have their numbers with them.
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

    A column of values becomes one of plain numbers for each of their parts, which is empty where there is none. A text that a
    spreadsheet would take for a formula begins with an apostrophe, as OWASP advises.
    """
    stream = io.StringIO()
    columns = [column for each in range(len(table.columns)) for column in _csv_columns(table, each)]
    csv.writer(stream, lineterminator="\n").writerows(zip(*columns, strict=True))
    return stream.getvalue()


def _csv_columns(table: Table, place: int) -> Iterator[list[str]]:
    """The columns of CSV that a column of the table becomes, with their headings."""
    cells = [row[place] for row in table.rows]
    head = table.columns[place].replace("-\n", "")
    parts = dict.fromkeys(part for cell in cells if isinstance(cell, Value) for part in cell.parts)
    if not parts:
        yield [_no_formula(head), *("" if place and cell == NOTHING else _no_formula(cell) for cell in cells)]
    for part in parts:
        yield [_no_formula(f"{head} {part}".strip()), *(_number(cell, part) for cell in cells)]


def _number(cell: str, part: str) -> str:
    number = cell.parts.get(part) if isinstance(cell, Value) else None
    return "" if number is None else f"{round(number, DIGITS):.15g}"


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
