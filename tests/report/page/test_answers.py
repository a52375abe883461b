"""Wrong answers of the best method, with their prompts where these are those that were answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.report.page.answers import BEGINNING, CUT, ENDING, TaskAnswers, WrongAnswers, wrong_answers
from mhrctl.report.results import read_results
from tests.report.made import made_cell, write_cells
from tests.report.page.made import write_answers, write_examples

PROMPTS = {"a": ["first", "second", "third", "fourth", "fifth"], "b": ["only"]}
ANSWERS = {"a": [("x", 50.0), ("y", 0.0), ("z", 100.0), ("u", 0.0), ("v", 20.0)], "b": [("right 0", 100.0)]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two methods, of which poly is the better one, with answers of its second seed alone."""
    cells = {
        "lora-s0": made_cell("lora", 1, 0, {"a": 10.0, "b": 100.0}),
        "poly-s0": made_cell("poly", 1, 0, {"a": 30.0, "b": 100.0}),
        "poly-s1": made_cell("poly", 1, 1, {"a": 34.0, "b": 100.0}),
    }
    write_cells(tmp_path / "metrics", cells)
    write_answers(tmp_path, "poly-s1", ANSWERS, examples=write_examples(tmp_path, PROMPTS))
    return tmp_path


def collected(data: Path) -> WrongAnswers:
    collected = wrong_answers(read_results(data / "metrics"), data)
    assert collected is not None
    return collected


def the_task(data: Path) -> TaskAnswers:
    (of_task,) = collected(data).tasks
    return of_task


def test_the_worst_answers_of_the_best_method_come_first_and_right_ones_not_at_all(data: Path) -> None:
    of_task = the_task(data)
    assert (of_task.task, of_task.wrong, of_task.examples) == ("a", 4, 5)
    assert [(each.prompt, each.expected, each.answer, each.score) for each in of_task.shown] == [
        ("second", ["right 1"], "y", "ROUGE-L 0.0"),
        ("fourth", ["right 3"], "u", "ROUGE-L 0.0"),
        ("fifth", ["right 4"], "v", "ROUGE-L 20.0"),
    ]
    assert "poly-s1" in collected(data).note


def test_prompts_of_other_examples_are_not_shown(data: Path) -> None:
    write_examples(data, PROMPTS | {"a": ["another", *PROMPTS["a"][1:]]})
    assert {each.prompt for each in the_task(data).shown} == {None}
    (data / "prepare/test_tasks.parquet").unlink()
    assert {each.prompt for each in the_task(data).shown} == {None}


def test_the_middle_of_a_long_prompt_is_left_out(data: Path) -> None:
    long = "b" * BEGINNING + "middle" + "e" * ENDING
    write_answers(data, "poly-s1", ANSWERS, examples=write_examples(data, PROMPTS | {"a": [long] * 5}))
    assert the_task(data).shown[0].prompt == "b" * BEGINNING + CUT + "e" * ENDING


def test_what_is_missing_or_damaged_is_said(data: Path) -> None:
    file = data / "evaluate/poly-s1/predictions.parquet"
    file.write_bytes(b"no parquet")
    assert str(file) in collected(data).note
    assert collected(data).tasks == ()
    file.unlink()
    assert collected(data).note == "Wrong answers are not shown: those of poly are not here."


def test_without_an_adapted_method_there_are_none(tmp_path: Path) -> None:
    assert wrong_answers(read_results(write_cells(tmp_path / "metrics", {"lora-s0": made_cell("lora")})), tmp_path) is None
