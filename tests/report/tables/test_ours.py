"""The table of our own results, which has no number of the paper's."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.results import NO_SCORES, read_results
from mhrctl.report.table import Table
from mhrctl.report.tables.ours import results_table
from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import as_paper, extra_steps, notes, row


def ours(metrics: Path, *expected: str) -> Table:
    return results_table(read_results(metrics), expected)


def test_it_has_scores_differences_and_trained_parameters(metrics: Path) -> None:
    table = ours(extra_steps(metrics))
    assert table.title == "Results: compositional, 2 test tasks, ROUGE-L, on scratch-1.2M"
    assert [row[0] for row in table.rows] == ["backbone", "lora", "mhr-h8", "mhr-h16", "mhr_mu-h8"]
    assert row(table, "lora") == ["lora", "63.0±3.6", "-", "-", "-", "40.0±0.0", "3,456", "3"]
    # 80 - 60 and 83 - 62, each on both tasks, which are too few for an interval
    assert row(table, "mhr-h8") == ["mhr-h8", "81.5", "+20.50", "-", "too few", "41.5", "3,456", "2"]
    assert row(table, "backbone") == ["backbone", "-", "-", "-", "-", "10.0", "0", "1"]
    assert "paper" not in f"{table.columns} {table.notes}".lower()


def test_its_first_note_is_the_verdict(metrics: Path) -> None:
    said = "Too few to say which method is better: 2 test tasks of at least 5 and 2 seeds of at least 3."
    assert ours(metrics).notes[0] == said


def test_what_an_interval_does_not_cover_is_said(metrics: Path) -> None:
    as_paper(metrics, "SuperNI", "T5-XL-LM")  # of 20 tasks
    assert "Of one seed it is of tasks alone" in notes(ours(metrics))


def test_what_is_missing_is_said(metrics: Path, tmp_path: Path) -> None:
    write_cells(metrics, {"poly-s9": made_cell("poly", 1, 9, both(60.0))})
    said = ours(metrics, "lora-s0", "lora-s7").notes
    assert "No task and seed in common with lora: poly." in said
    assert said[-1] == "No scores yet: lora-s7."
    empty = ours(tmp_path / "missing")
    assert (list(empty.rows), list(empty.notes)) == ([], [NO_SCORES])


def test_without_lora_the_others_are_compared_to_the_first(metrics: Path) -> None:
    for file in (metrics / "evaluate").glob("lora-*"):
        file.unlink()
    table = ours(metrics)
    assert table.columns[2] == "vs.\nmhr-h8"
    assert row(table, "mhr_mu-h8")[2] == "-10.00"
