"""How the page begins."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mhrctl.report.differences import compare_all
from mhrctl.report.page.headline import Headline, headline
from mhrctl.report.results import NO_SCORES, read_results
from tests.report.made import made_cell, write_cells


def begun(folder: Path, cards: dict[str, Any] | None = None, **facts: Any) -> Headline:
    cells = {
        "lora-s0": made_cell("lora", 1, 0, {"a": 40.0}, **facts),
        "lora-s2": made_cell("lora", 1, 2, {"a": 40.0}, **facts),
        "lora-light-s0": made_cell("lora", 1, 0, {"a": 41.0}, variant="light", **facts),
    }
    results = read_results(write_cells(folder / "data/metrics", cells))
    return headline(results, compare_all(results), cards or {}, folder)


def test_it_says_what_the_results_are_of(tmp_path: Path) -> None:
    said = begun(tmp_path, {"adapt/lora-s0": {"facts": {"shots": {"a": [32, 8], "b": [32, 8]}}}, "adapt/x": {}})
    assert said.title == "Compositions of list operations on scratch-1.2M"
    assert said.verdict == "Too few to say which method is better: 1 test task of at least 5 and 1 seed of at least 3."
    assert list(said.facts) == [
        "Highest mean: lora-light, ROUGE-L 41.0, +1.00 over lora.",
        "1 test task, 32 examples of each to adapt with, 2 methods and variants, seeds 0, 2.",
        f"Made by mhrctl {version('mhrctl')}.",
    ]


@pytest.mark.parametrize(
    ("shots", "text"), [([1, 1], "1 example of each"), ([16, 70], "16 to 70 examples of each"), ([], None)]
)
def test_it_says_how_many_examples_a_task_is_adapted_with(tmp_path: Path, shots: list[int], text: str | None) -> None:
    facts = " ".join(begun(tmp_path, {"adapt/a": {"facts": {"shots": {str(each): [each, 4] for each in shots}}}}).facts)
    assert (f"{text} to adapt with" in facts) if text else ("adapt with" not in facts)


def test_tasks_of_ones_own_have_the_name_of_their_folder(tmp_path: Path) -> None:
    project = tmp_path / "my-study"
    assert begun(project, suite="jsonl").title == "my-study on scratch-1.2M"


def test_without_scores_it_says_what_to_run(tmp_path: Path) -> None:
    said = headline(read_results(tmp_path), {}, {}, tmp_path)
    assert (said.title, said.verdict, len(said.facts)) == (tmp_path.name, NO_SCORES, 1)
