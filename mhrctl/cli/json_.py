"""With `--json` a command prints what it shows as one JSON document: the same numbers, typed and unrounded.

Nothing else goes to stdout then; what there is to say goes to stderr, as ever. What is not there is null.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from mhrctl.cli import display

if TYPE_CHECKING:
    from mhrctl.report.table import Table

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document in place of tables, with the same numbers unrounded.")
]
WHOLE_NUMBER = re.compile(r"\d{1,3}(,\d{3})*|\d+", re.ASCII)


def print_json(document: object) -> None:
    """Print a document: dataclasses and models become objects, paths texts, and numbers that are not finite null."""
    text = json.dumps(_finite(to_jsonable_python(document)), ensure_ascii=False, indent=2, allow_nan=False)
    display.echo(text.encode(errors="backslashreplace").decode())  # half a character of a task's name is an escape in JSON


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """Put null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value - value != 0 else value


def table_record(table: Table) -> dict[str, Any]:
    """Return a table as JSON has it: rows by the names of columns, which are the headings as one word.

    A cell that stands for one number is that number, one that stands for several an object of them.
    """
    keys = [key_of(column) for column in table.columns]
    rows = [dict(zip(keys, map(_cell, row), strict=True)) for row in table.rows]
    return {"title": table.title, "columns": keys, "rows": rows, "notes": list(table.notes)}


def key_of(heading: str) -> str:
    """Return a heading as a key: `adapted_rouge_l` of `adapted`, a new line, `ROUGE-L`."""
    return re.sub(r"\W+", "_", heading.replace("-\n", "").replace("%", " percent ").lower()).strip("_")


def _cell(text: str) -> Any:  # noqa: ANN401 - a text, a number, several, or none
    from mhrctl.report.table import NOTHING, Value

    if isinstance(text, Value):
        parts = {part or "value": number for part, number in text.parts.items()}
        return parts["value"] if set(parts) == {"value"} else parts
    if text in ("", NOTHING):
        return None
    return int(text.replace(",", "")) if WHOLE_NUMBER.fullmatch(text) else text
