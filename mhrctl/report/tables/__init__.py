"""The paper's tables are built from whatever results exist, with its printed numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mhrctl.errors import ParamsError, unknown
from mhrctl.report.results import Results
from mhrctl.report.table import Table
from mhrctl.report.tables.few_shot import table2, table3, table4
from mhrctl.report.tables.parameters import table1, table6
from mhrctl.report.tables.zero_shot import table5

TABLES: dict[int, Callable[[Results, Sequence[str]], Table]] = {
    1: lambda _results, _expected: table1(),
    2: table2,
    3: table3,
    4: table4,
    5: table5,
    6: table6,
}


def build_table(number: int, results: Results, expected_cells: Sequence[str]) -> Table:
    """Build one of the paper's tables.

    Args:
        number: of the table in the paper.
        results: ours; without scores the table has the paper's numbers alone.
        expected_cells: the grid's cells; those without scores are named under the table.

    Raises:
        ParamsError: if there is no such table.
    """
    if number not in TABLES:
        raise ParamsError(unknown("table", str(number), map(str, TABLES)))
    return TABLES[number](results, expected_cells)
