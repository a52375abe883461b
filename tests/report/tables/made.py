"""Scores made by hand for tables, and looks into a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mhrctl.report.printed import BACKBONES, WEIGHTS, Setting
from mhrctl.report.results import read_results
from mhrctl.report.table import Table
from mhrctl.report.tables import build_table
from tests.report.made import both, made_cell, write_cells

BARE = {"multi_task": 0, "adaptation": 0}


CELLS: dict[str, dict[str, Any]] = {
    "backbone": made_cell("backbone", None, None, zero_shot=10.0, layout=None, parameters=BARE),
    "lora-s0": made_cell("lora", 1, 0, both(60.0)),
    "lora-s1": made_cell("lora", 1, 1, both(62.0)),
    "lora-s2": made_cell("lora", 1, 2, both(67.0)),
    "mhr-h16-s0": made_cell("mhr", 16, 0, both(75.0)),
    "mhr-h8-s0": made_cell("mhr", 8, 0, both(80.0), zero_shot=41.0, exact=66.0),
    "mhr-h8-s1": made_cell("mhr", 8, 1, both(83.0), zero_shot=42.0, exact=68.0),
    "mhr_mu-h8-s0": made_cell("mhr_mu", 8, 0, both(70.0)),
}


def everywhere(metrics: Path, **facts: Any) -> Path:
    """Say something else of every cell."""
    for file in (metrics / "evaluate").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return metrics


def as_paper(metrics: Path, suite: str, backbone: str, **facts: Any) -> Path:
    """Make every cell one of a setting of the paper: its backbone, metric and test tasks, half of which are as either of two.

    An odd task is between both, so that means stay what they were.
    """
    setting = Setting(suite, "accuracy" if suite == "T0" else "Rouge-L", backbone)
    names = sorted(setting.test_tasks()[0])
    facts |= {"suite": {"T0": "t0", "SuperNI": "superni"}[suite], "metric": "accuracy" if suite == "T0" else "rouge_l"}
    facts["layout"] = facts.get("layout", "full" if suite == "T0" else "light")
    facts["frozen"] = {"source": "hub", "parameters": WEIGHTS[backbone], "fingerprint": "none"} | facts.get("frozen", {})
    for file in (metrics / "evaluate").iterdir():
        cell = json.loads(file.read_text())
        one, two = [cell["by_task"][name] for name in sorted(cell["by_task"])][:2]
        between = one | {"adapted": one["adapted"] and (one["adapted"] + two["adapted"]) / 2}
        half = len(names) // 2
        of_cell = facts | ({"layout": None} if cell["method"] == "backbone" else {})
        tasks = dict(zip(names, [one] * half + [two] * half + [between] * (len(names) % 2), strict=True))
        file.write_text(json.dumps(cell | {"backbone": BACKBONES[backbone], "by_task": tasks, "tasks": len(names)} | of_cell))
    return metrics


def built(number: int, metrics: Path, expected: Sequence[str] = ()) -> Table:
    """A table of the paper from these scores."""
    return build_table(number, read_results(metrics), expected)


def row(table: Table, label: str) -> list[str]:
    (cells,) = [list(row) for row in table.rows if row[0] == label]
    return cells


def notes(table: Table) -> str:
    return " ".join(table.notes)


def extra_steps(metrics: Path) -> Path:
    cells = {
        f"lora-x100-s{seed}": made_cell("lora", 1, seed, zero_shot=score, extra_steps=100)
        for seed, score in ((0, 50.0), (1, 54.0))
    }
    return write_cells(metrics, cells)
