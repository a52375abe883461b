"""Every number that the paper prints, as package data (`tables.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class PrintedTable:
    """A table of scores in the paper.

    Attributes:
        suite: benchmark.
        metric: of the scores.
        backbone: frozen model.
        rows: {method: (mean, standard deviation)}.
    """

    suite: str
    metric: str
    backbone: str
    rows: dict[str, tuple[float, float]]


@cache
def printed() -> dict[str, Any]:
    """All of `tables.json`."""
    content: dict[str, Any] = json.loads((files("mhrctl.paper") / "tables.json").read_text())
    return content


def printed_table(name: str) -> PrintedTable:
    """A table of scores, such as `table2`."""
    table = printed()[name]
    rows = {row["method"]: (row["mean"], row["std"]) for row in table["rows"]}
    return PrintedTable(table["suite"], table["metric"], table["backbone"], rows)
