"""Methods compared on the tasks and seeds that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ParamsError
from mhrctl.report.differences import baseline_differences, differences_table
from mhrctl.report.results import Results, read_results
from tests.report.made import both, made_cell, write_cells


def results_of(folder: Path, **cells: dict[str, Any]) -> Results:
    return read_results(write_cells(folder, {name.replace("__", "-"): cell for name, cell in cells.items()}))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Mhr h8 is three points above lora on every task and seed that both have; seed 7 is lora's alone."""
    return results_of(
        tmp_path,
        lora__s0=made_cell("lora", 1, 0, {"a": 10.0, "b": 50.0}),
        lora__s1=made_cell("lora", 1, 1, {"a": 30.0, "b": 20.0}),
        lora__s7=made_cell("lora", 1, 7, {"a": 99.0, "b": 99.0}),
        mhr__h8__s0=made_cell("mhr", 8, 0, {"a": 13.0, "b": 53.0}),
        mhr__h8__s1=made_cell("mhr", 8, 1, {"a": 33.0, "b": 23.0}),
        poly__s9=made_cell("poly", 1, 9, both(50)),
        backbone=made_cell("backbone", None, None),
    )


def test_scores_are_paired_by_task_and_seed(results: Results) -> None:
    table = baseline_differences(results)
    assert [list(row) for row in table.rows] == [["mhr h8", "2", "2", "+3.00", "+3.00 to +3.00", "0.0%"]]
    assert table.title == "Differences to lora"


def test_one_pair_of_scores_has_no_interval(tmp_path: Path) -> None:
    cells = {"lora-s0": made_cell("lora", 1, 0, {"a": 10.0}), "poly-s0": made_cell("poly", 1, 0, {"a": 13.0})}
    table = baseline_differences(read_results(write_cells(tmp_path, cells)))
    assert [list(row) for row in table.rows] == [["poly", "1", "1", "+3.00", "-", "-"]]
    assert "One task with one seed has no interval." in table.notes
    cells |= {"lora-s1": made_cell("lora", 1, 1, {"a": 10.0}), "poly-s1": made_cell("poly", 1, 1, {"a": 17.0})}
    table = baseline_differences(read_results(write_cells(tmp_path, cells)))
    assert [list(row) for row in table.rows] == [["poly", "1", "2", "+5.00", "+3.00 to +7.00", "0.0%"]]
    assert any(note.startswith("Of one task it is of seeds alone") for note in table.notes)


def test_what_shares_no_seed_is_named(results: Results) -> None:
    assert baseline_differences(results).notes[-1] == "No task and seed in common with lora: poly."


def test_any_two_methods_can_be_compared(results: Results) -> None:
    table = differences_table(results, against="mhr h8", labels=["lora", "lora"])
    assert [list(row) for row in table.rows] == [["lora", "2", "2", "-3.00", "-3.00 to -3.00", "100.0%"]]


@pytest.mark.parametrize(("against", "labels"), [("mhr", ["lora"]), ("lora", ["mhr"]), ("backbone", ["all"])])
def test_an_unknown_label_is_rejected_with_the_known_ones(results: Results, against: str, labels: list[str]) -> None:
    with pytest.raises(ParamsError, match=r"unknown method '\w+'.*known: lora, poly, mhr h8"):
        differences_table(results, against=against, labels=labels)


def test_without_lora_it_is_said_that_there_is_none(tmp_path: Path) -> None:
    table = baseline_differences(results_of(tmp_path, poly__s0=made_cell("poly", 1, 0, both(50))))
    assert (list(table.rows), list(table.notes)) == ([], ["No adapted scores of lora, which the others would be compared to."])


def test_without_scores_it_is_said_what_to_run(tmp_path: Path) -> None:
    table = differences_table(read_results(tmp_path), labels=["mhr h8"])
    assert list(table.rows) == []
    assert "run `dvc repro`" in table.notes[0]
