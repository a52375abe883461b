"""The table of our own results, which has no number of the paper's."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.results import NO_SCORES, read_results
from mhrctl.report.table import Table
from mhrctl.report.tables.ours import results_table
from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import extra_steps, notes, row


def ours(metrics: Path, *expected: str) -> Table:
    return results_table(read_results(metrics), expected)


def test_it_has_scores_differences_and_trained_parameters(metrics: Path) -> None:
    table = ours(extra_steps(metrics))
    assert table.title == "Results: compositional on scratch-1.2M"
    assert [row[0] for row in table.rows] == ["backbone", "lora", "mhr h8", "mhr h16", "mhr_mu h8"]
    assert row(table, "lora") == ["lora", "3", "40.0±0.0", "63.0±3.6", "-", "-", "3,456"]
    # 80 - 60 and 83 - 62, each on both tasks
    assert row(table, "mhr h8") == ["mhr h8", "2", "41.5±0.7", "81.5±2.1", "+20.50", "+20.00 to +21.00", "3,456"]
    assert row(table, "backbone") == ["backbone", "1", "10.0", "-", "-", "-", "-"]
    assert "paper" not in f"{table.columns} {table.notes}".lower()


def test_what_an_interval_does_not_cover_is_said(metrics: Path) -> None:
    assert "Of one seed it is of tasks alone" in notes(ours(metrics))
    write_cells(metrics, {"poly-s0": made_cell("poly", 1, 0, {"one": 60.0})})
    table = ours(metrics)
    assert row(table, "poly")[4:6] == ["+5.00", "-"]
    assert "One task with one seed has no interval." in table.notes


def test_what_is_missing_is_said(metrics: Path, tmp_path: Path) -> None:
    write_cells(metrics, {"poly-s9": made_cell("poly", 1, 9, both(60.0))})
    said = ours(metrics, "lora-s0", "lora-s7").notes
    assert "No task and seed in common with lora: poly." in said
    assert said[-1] == "No scores yet: lora-s7."
    for file in (metrics / "evaluate").glob("lora-*"):
        file.unlink()
    assert "No adapted scores of lora, which the others would be compared to." in ours(metrics).notes
    empty = ours(tmp_path / "missing")
    assert (list(empty.rows), list(empty.notes)) == ([], [NO_SCORES])
