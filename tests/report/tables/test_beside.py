"""Ours beside the paper's: differences, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.report.tables.beside import human, named
from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import as_paper, built, everywhere, notes, row

LOCAL = {"source": "local", "parameters": 2_849_757_184, "fingerprint": "none"}
SMALL = {"source": "hub", "parameters": 27_872, "fingerprint": "none"}
THREE = {name: {"metric": "rouge_l", "zero_shot": 1.0, "adapted": None, "validation": None} for name in "abc"}


def test_a_difference_is_taken_where_all_is_the_papers(metrics: Path) -> None:
    table = built(2, as_paper(metrics, "SuperNI", "T5-XL-LM"))
    assert row(table, "lora")[-2:] == ["67.6±0.8", "-4.6"]
    assert "No difference" not in notes(table)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"suite": "jsonl"}, "of suite jsonl, not SuperNI."),
        ({"by_task": THREE}, "on 3 test tasks that are not the paper's 20."),
        ({"metric": "f1"}, "scored by F1, not Rouge-L."),
        ({"backbone": "google/t5-xl-lm-adapt2"}, "of backbone google/t5-xl-lm-adapt2, not T5-XL-LM."),
        ({"frozen": LOCAL}, "of another google/t5-xl-lm-adapt than T5-XL-LM (local, 2,849,757,184 weights)."),
        ({"frozen": SMALL}, "of another google/t5-xl-lm-adapt than T5-XL-LM (hub, 27,872 weights)."),
        ({"frozen": None}, "of scores that do not say which weights google/t5-xl-lm-adapt has (`mhrctl evaluate` makes them"),
        ({"suite": "t0", "metric": "accuracy"}, "of suite t0, not SuperNI, scored by accuracy, not Rouge-L."),
    ],
    ids=["suite", "test tasks", "metric", "backbone", "a local namesake", "a small namesake", "unknown weights", "two at once"],
)
def test_a_difference_that_would_mean_nothing_is_left_out_with_the_reason(
    metrics: Path, facts: dict[str, Any], why: str
) -> None:
    table = built(2, everywhere(as_paper(metrics, "SuperNI", "T5-XL-LM"), **facts))
    assert {cells[-1] for cells in table.rows} == {"-"}
    assert row(table, "mhr_z-h64")[-2] == "68.0±0.2"
    assert f"No difference is taken: ours are {why}" in notes(table)


def test_where_nothing_chose_the_step_it_is_said(metrics: Path) -> None:
    tied = made_cell("poly", 1, 0, both(50.0), validation=0.0)
    tied["by_task"]["one"]["undecided"] = True
    table = built(2, write_cells(metrics, {"poly-s0": tied}))
    said = (
        "No validation score ever differed, so that the first step was kept: poly-s0 in 1 of 2 tasks (1 with 0 at every step)."
    )
    assert said in table.notes


def test_the_tokens_of_rouge_are_named_where_they_are_not_the_english_ones(metrics: Path) -> None:
    cell = made_cell("poly", 1, 0, both(50.0))
    assert "tokens of GPT-2" not in notes(built(2, metrics))
    cell["by_task"]["two"]["rouge_tokenizer"] = "gpt2"
    table = built(2, write_cells(metrics, {"poly-s0": cell}))
    assert "ROUGE-L compares the tokens of GPT-2 in two; of other tasks stemmed words of a to z and digits." in table.notes


def test_many_names_are_counted() -> None:
    assert named([f"c{number}" for number in range(14)]).endswith("c11 and 2 more")


def test_a_chosen_trial_is_named(metrics: Path) -> None:
    trials = {
        f"poly-t{trial}-s0": made_cell("poly", 1, 0, both(50.0), validation=40.0 + trial, trial=trial, settings={"lr": trial})
        for trial in (1, 2)
    }
    assert (
        "poly: of 2 trials each task has the one with its best mean validation score: number 2 (lr 2) in 2 of 2 tasks."
        in notes(built(2, write_cells(metrics, trials)))
    )


def test_a_difference_that_rounds_to_nothing_has_no_minus(metrics: Path) -> None:
    write_cells(metrics, {"poly-s0": made_cell("poly", 1, 0, both(67.77))})
    as_paper(metrics, "SuperNI", "T5-XL-LM")
    assert row(built(2, metrics), "poly")[-2:] == ["67.8±0.8", "+0.0"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (3456, "3.5K"),
        (17_695, "17.7K"),
        (960_000, "960.0K"),
        (999_949, "999.9K"),
        (999_950, "1.0M"),
        (2_211_840, "2.2M"),
        (2_849_757_184, "2.8B"),
    ],
)
def test_human(count: int, text: str) -> None:
    assert human(count) == text
