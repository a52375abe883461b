"""One table of tasks by methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhrctl.report.page.by_task import DEEPEST, FAINTEST, ScoresByTask, Shade, scores_by_task
from mhrctl.report.results import read_results
from tests.report.made import made_cell, write_cells


def table_of(folder: Path, cells: Mapping[str, dict[str, Any]]) -> ScoresByTask:
    table = scores_by_task(read_results(write_cells(folder, cells)))
    assert table is not None
    return table


def cells(**facts: Any) -> dict[str, dict[str, Any]]:
    """Lora of three seeds and poly of one, with the bare backbone."""
    return {
        "backbone": made_cell("backbone", None, None, zero_shot=10.0, **facts),
        "lora-s0": made_cell("lora", 1, 0, {"b": 50.0, "a": 40.0}, **facts),
        "lora-s1": made_cell("lora", 1, 1, {"b": 52.0, "a": 41.0}, **facts),
        "lora-s2": made_cell("lora", 1, 2, {"b": 60.0, "a": 42.0}, **facts),
        "poly-s0": made_cell("poly", 1, 0, {"b": 46.0, "a": 43.0, "c": 7.0}, **facts),
    }


def texts(table: ScoresByTask) -> dict[str, list[str]]:
    return {row.name: [score.text for score in row.scores] for row in table.rows}


def test_rows_are_tasks_and_columns_methods_with_means_over_seeds_and_tasks(tmp_path: Path) -> None:
    table = table_of(tmp_path, cells())
    assert list(table.columns) == ["lora", "poly", "backbone\nzero-shot"]
    assert texts(table) == {
        "a": ["41.0", "43.0", "-"],
        "b": ["54.0", "46.0", "-"],
        "c": ["-", "7.0", "-"],
        "one": ["-", "-", "10.0"],
        "two": ["-", "-", "10.0"],
        "mean of tasks": ["47.5", "32.0", "10.0"],
    }
    assert table.metrics == ["ROUGE-L"]


def test_scores_of_t0_are_medians_over_seeds(tmp_path: Path) -> None:
    assert texts(table_of(tmp_path, cells(suite="t0")))["b"][0] == "52.0"


def test_the_best_of_a_row_is_marked_and_equals_are_all_best(tmp_path: Path) -> None:
    table = table_of(tmp_path, cells() | {"ia3-s0": made_cell("ia3", 1, 0, {"a": 43.01, "b": 1.0})})
    best = {row.name: [score.is_best for score in row.scores] for row in table.rows}
    assert list(table.columns)[:3] == ["lora", "ia3", "poly"]
    assert best["a"] == [False, True, True, False]  # 43.01 and 43.0 are both shown as 43.0
    assert best["b"] == [True, False, False, False]
    assert best["one"] == [False] * 4


def test_colours_are_by_the_difference_to_the_baseline(tmp_path: Path) -> None:
    table = table_of(tmp_path, cells())
    shades = {row.name: [score.shade for score in row.scores] for row in table.rows}
    # 2 above and 8 below on the tasks, 15.5 below in the mean, which is the deepest
    assert shades["a"] == [None, Shade("above", f"{FAINTEST + (DEEPEST - FAINTEST) * 2 / 15.5:.2f}"), None]
    assert shades["b"][1] == Shade("below", f"{FAINTEST + (DEEPEST - FAINTEST) * 8 / 15.5:.2f}")
    assert shades["mean of tasks"][1] == Shade("below", f"{DEEPEST:.2f}")
    assert shades["c"] == [None] * 3
    assert "Blue is above lora, orange below; the deepest colour is a difference of 15.5." in table.legend


def test_one_method_alone_has_no_colours_and_no_best(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"lora-s0": made_cell("lora", 1, 0, {"a": 40.0})})
    assert not any(score.is_best or score.shade for row in table.rows for score in row.scores)
    assert "Blue" not in table.legend


def test_equal_scores_are_neither_best_nor_coloured(tmp_path: Path) -> None:
    table = table_of(tmp_path, {f"{name}-s0": made_cell(name, 1, 0, {"a": 40.0}) for name in ("lora", "poly")})
    assert not any(score.is_best or score.shade for row in table.rows for score in row.scores)
    assert "Blue" not in table.legend


def test_before_any_adaptation_scores_are_zero_shot(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"lora-s0": made_cell("lora"), "backbone": made_cell("backbone", None, None, zero_shot=9.0)})
    assert list(table.columns) == ["lora\nzero-shot", "backbone\nzero-shot"]
    assert texts(table)["one"] == ["40.0", "9.0"]


def test_without_scores_there_is_no_table(tmp_path: Path) -> None:
    assert scores_by_task(read_results(tmp_path)) is None
