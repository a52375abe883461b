"""The table of pools: scores relative to each task's own adapter, by what of the task was used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mhrctl.report.results import NO_SCORES, read_results
from mhrctl.report.table import Table
from mhrctl.report.tables.pool import NO_OWN, pool_table
from tests.report.made import made_cell, write_cells

TASKS = "abcdef"


def cell(method: str, seed: int, share: float, tuned: float, **facts: Any) -> dict[str, Any]:
    """A cell whose scores are these shares of those of the tasks' own adapters, which have 50."""
    made = made_cell(method, 1, seed, dict.fromkeys(TASKS, 50 * tuned), zero_shot=50 * share, **facts)
    return {"seed": seed, **made}


def table(folder: Path, cells: Mapping[str, Any]) -> Table:
    return pool_table(read_results(write_cells(folder, cells)), list(cells))


OWN = {f"adapter_soup-own-s{seed}": cell("adapter_soup", seed, 1.0, 1.1, variant="own", chosen_by="name") for seed in (0, 1)}


def test_a_pool_is_a_row_with_a_column_for_each_variant_that_leaves_something_out(tmp_path: Path) -> None:
    variants = {"plain": (1.01, "nothing"), "absent": (0.88, "adapter"), "unseen": (0.84, "examples")}
    cells = dict(OWN)
    for seed, (variant, (share, left)) in itertools.product((0, 1), variants.items()):
        name = f"lorauter-{variant}-s{seed}".replace("-plain", "")
        cells[name] = cell("lorauter", seed, share, share, variant=variant, leave_out=left)
    rows = {row[0]: list(row[1:]) for row in table(tmp_path, cells).rows}
    assert rows["lorauter, made"] == ["101.0 (101-101)", "88.0 (88-88)", "84.0 (84-84)", "2"]
    assert rows["its own, tuned"] == ["110.0 (110-110)", "-", "-", "2"]
    assert set(rows) == {"lorauter, made", "its own, tuned"}


def test_merges_are_as_made_and_tuned_and_training_together_has_no_adapter_of_the_tasks_own(tmp_path: Path) -> None:
    cells = OWN | {
        "ties-s0": cell("ties", 0, 0.9, 1.2, chosen_by="loss"),
        "ties-absent-s0": cell("ties", 0, 0.8, 1.0, chosen_by="loss", variant="absent", leave_out="adapter"),
        "ties-one-s0": cell("ties", 0, 0.95, 1.1, chosen_by="loss", variant="one"),
        "poly-s0": cell("poly", 0, 0.7, 1.3),
        "backbone": made_cell("backbone", None, None, zero_shot=20.0),
    }
    rows = {row[0]: [each.split()[0] for each in row[1:]] for row in table(tmp_path, cells).rows}
    assert rows["ties, made"] == ["90.0", "80.0", "-", "1"]
    assert rows["ties, tuned"] == ["120.0", "100.0", "-", "1"]
    assert rows["ties-one, made"] == ["95.0", "-", "-", "1"]
    assert rows["poly, made"] == ["-", "-", "70.0", "1"]
    assert rows["poly, tuned"] == ["-", "130.0", "-", "1"]


def test_a_task_whose_own_adapter_scores_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    yardstick = cell("adapter_soup", 0, 1.0, 1.0, variant="own", chosen_by="name")
    cells = {"adapter_soup-own-s0": yardstick, "poly-s0": cell("poly", 0, 1, 0.5)}
    cells["adapter_soup-own-s0"]["by_task"]["b"]["zero_shot"] = 0.0
    made = table(tmp_path, cells)
    assert "Left out, since its own adapter scores nothing: b." in made.notes
    assert {row[0]: row[2].split()[0] for row in made.rows}["poly, tuned"] == "50.0"


@pytest.mark.parametrize(("cells", "says"), [({}, NO_SCORES), ({"poly-s0": cell("poly", 0, 1, 1)}, NO_OWN)])
def test_without_the_yardstick_there_is_nothing_to_say(tmp_path: Path, cells: dict[str, Any], says: str) -> None:
    made = table(tmp_path, cells)
    assert (made.rows, list(made.notes)) == ([], [says])
