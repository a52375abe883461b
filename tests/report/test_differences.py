"""Methods compared on the tasks and seeds that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ParamsError
from mhrctl.report.differences import baseline_of, compare_all, differences_table
from mhrctl.report.results import Results, read_results
from tests.report.made import both, made_cell, write_cells


def results_of(folder: Path, **cells: dict[str, Any]) -> Results:
    return read_results(write_cells(folder, {name.replace("__", "-"): cell for name, cell in cells.items()}))


def five(score: float) -> dict[str, float]:
    """Five tasks, the fewest that have an interval: the first has this score, each next one a point more."""
    return {name: score + place for place, name in enumerate("abcde")}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Mhr h8 is three points above lora on every task and seed that both have; seed 7 is lora's alone."""
    return results_of(
        tmp_path,
        lora__s0=made_cell("lora", 1, 0, five(10.0)),
        lora__s1=made_cell("lora", 1, 1, five(30.0)),
        lora__s7=made_cell("lora", 1, 7, five(80.0)),
        mhr__h8__s0=made_cell("mhr", 8, 0, five(13.0)),
        mhr__h8__s1=made_cell("mhr", 8, 1, five(33.0)),
        poly__s9=made_cell("poly", 1, 9, both(50)),
        backbone=made_cell("backbone", None, None),
    )


def test_scores_are_paired_by_task_and_seed(results: Results) -> None:
    table = differences_table(results)
    assert [list(row) for row in table.rows] == [["mhr-h8", "5", "2", "+3.00", "+3.00 to +3.00", "0.0%", "too few"]]
    assert table.title == "Differences to lora"


def test_of_four_tasks_there_is_no_interval_and_nothing_to_say(tmp_path: Path) -> None:
    tasks = [dict.fromkeys("abcd", 10.0 + 2 * seed) for seed in range(4)]
    cells = {
        f"{name}-s{seed}": made_cell(name, 1, seed, tasks[seed + up])
        for seed in range(3)
        for name, up in (("lora", 0), ("poly", 1))
    }
    table = differences_table(read_results(write_cells(tmp_path, cells)))
    assert [list(row) for row in table.rows] == [["poly", "4", "3", "+2.00", "-", "-", "too few"]]
    assert table.notes[-1] == "Of fewer than 5 tasks there is no interval."
    assert not any(note.startswith(("Interval:", "Chance")) for note in table.notes)


@pytest.mark.parametrize(
    ("gains", "interval", "verdict"),
    [
        ([1.0, 2.0, 3.0, 2.0, 1.0], "+1.20 to +2.40", "better"),
        ([-1.0, -2.0, -3.0, -2.0, -1.0], "-2.40 to -1.20", "worse"),
        ([1.0, -1.0, 1.0, -1.0, 1.0], "-0.60 to +1.00", "open"),
    ],
)
def test_of_five_tasks_and_three_seeds_there_is_a_verdict(
    tmp_path: Path, gains: list[float], interval: str, verdict: str
) -> None:
    plain = five(50.0)
    gained = {task: score + gain for (task, score), gain in zip(plain.items(), gains, strict=True)}
    cells = {
        f"{name}-s{seed}": made_cell(name, 1, seed, tasks)
        for seed in range(3)
        for name, tasks in (("lora", plain), ("poly", gained))
    }
    (row,) = differences_table(read_results(write_cells(tmp_path, cells))).rows
    assert (row[4], row[6]) == (interval, verdict)


def test_what_few_seeds_leave_out_of_an_interval_is_said(results: Results, tmp_path: Path) -> None:
    assert (
        "Of two seeds it is of tasks above all: how much another seed would change is hardly in it."
        in differences_table(results).notes
    )
    (tmp_path / "evaluate/mhr-h8-s1.json").unlink()
    said = differences_table(read_results(tmp_path)).notes
    assert "Of one seed it is of tasks alone: how much another seed would change is not in it." in said


def test_what_shares_no_seed_is_named(results: Results) -> None:
    assert differences_table(results).notes[-1] == "No task and seed in common with lora: poly."


def test_any_two_methods_can_be_compared(results: Results) -> None:
    table = differences_table(results, against="mhr-h8", labels=["lora", "lora"])
    assert [list(row) for row in table.rows] == [["lora", "5", "2", "-3.00", "-3.00 to -3.00", "100.0%", "too few"]]


@pytest.mark.parametrize(("against", "labels"), [("mrh", ["lora"]), ("lora", ["mhr-h4"]), ("backbone", ["all"])])
def test_an_unknown_label_is_rejected_with_the_known_ones(results: Results, against: str, labels: list[str]) -> None:
    with pytest.raises(ParamsError, match=r"unknown method '[\w-]+'.*known: lora, poly, mhr-h8"):
        differences_table(results, against=against, labels=labels)


@pytest.mark.parametrize("name", ["mhr", "mhr h8", "MHR-h8"])
def test_a_method_goes_by_a_part_of_its_label(results: Results, name: str) -> None:
    assert differences_table(results, labels=[name]).rows == differences_table(results, labels=["mhr-h8"]).rows
    assert (
        differences_table(results, against=name, labels=["lora"]).columns
        == differences_table(results, against="mhr-h8").columns
    )


def test_without_lora_the_first_method_is_what_the_others_are_compared_to(tmp_path: Path) -> None:
    cells = {"poly__s0": made_cell("poly", 1, 0, five(50)), "mhr__h8__s0": made_cell("mhr", 8, 0, five(51))}
    results = results_of(tmp_path, **cells)
    baseline = baseline_of(results)
    assert baseline is not None
    assert baseline.label == "poly"
    table = differences_table(results)
    assert (table.title, [row[:4] for row in table.rows]) == ("Differences to poly", [["mhr-h8", "5", "1", "+1.00"]])
    assert compare_all(results).keys() == {"mhr-h8"}


def test_one_method_alone_is_compared_to_nothing(tmp_path: Path) -> None:
    assert list(differences_table(results_of(tmp_path, lora__s0=made_cell("lora", 1, 0, both(50)))).rows) == []


def test_without_scores_it_is_said_what_to_run(tmp_path: Path) -> None:
    table = differences_table(read_results(tmp_path), labels=["mhr-h8"])
    assert list(table.rows) == []
    assert "run `dvc repro`" in table.notes[0]
