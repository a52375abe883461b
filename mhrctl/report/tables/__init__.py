"""Tables are built from whatever results exist: the paper's, with its printed numbers beside ours, and one of pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from mhrctl.errors import ParamsError, unknown
from mhrctl.report.results import Results
from mhrctl.report.table import Table
from mhrctl.report.tables.few_shot import table2, table3, table4
from mhrctl.report.tables.parameters import table1, table6
from mhrctl.report.tables.pool import pool_table
from mhrctl.report.tables.zero_shot import table5

TableName = int | Literal["pool"]
"""A number in the paper, or a table of ours."""
TABLES: dict[TableName, Callable[[Results, Sequence[str]], Table]] = {
    1: lambda _results, _expected: table1(),
    2: table2,
    3: table3,
    4: table4,
    5: table5,
    6: table6,
    "pool": pool_table,
}


def build_table(name: TableName, results: Results, expected_cells: Sequence[str]) -> Table:
    """Build one of the tables.

    Args:
        name: number of the table in the paper, or name of one of ours.
        results: ours; without scores the table has the paper's numbers alone.
        expected_cells: the grid's cells; those without scores are named under the table.

    Raises:
        ParamsError: if there is no such table.
    """
    if name not in TABLES:
        raise ParamsError(unknown("table", str(name), map(str, TABLES)))
    return TABLES[name](results, expected_cells)
