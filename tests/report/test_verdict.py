"""What is said of results, from nothing at all to a method that is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mhrctl.report.differences import compare_all
from mhrctl.report.results import NO_SCORES, Results, read_results
from mhrctl.report.verdict import best_line, verdict
from tests.report.made import made_cell, write_cells

TASKS = "abcde"
STEADY = (1.0, 2.0, 3.0, 2.0, 1.0)
MIXED = (1.0, -1.0, 1.0, -1.0, 1.0)


def results_of(folder: Path, gains: Mapping[str, Sequence[float]], *, seeds: int = 3, lora: bool = True) -> Results:
    """Lora with 50 on each task, and methods with so much more, each on as many tasks as there are gains."""
    tasks = max(map(len, gains.values()), default=len(TASKS))
    every = {"lora": [0.0] * tasks, **gains} if lora else gains
    cells = {
        f"{name}-s{seed}": made_cell(name, 1, seed, {task: 50 + gain for task, gain in zip(TASKS, of_tasks, strict=False)})
        for name, of_tasks in every.items()
        for seed in range(seeds)
    }
    return read_results(write_cells(folder, cells))


def said(results: Results) -> str:
    return verdict(results, compare_all(results))


def test_without_scores_or_a_second_method_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert said(read_results(tmp_path)) == NO_SCORES
    write_cells(tmp_path, {"lora-s0": made_cell("lora")})
    assert said(read_results(tmp_path)) == "No method is adapted yet, so none can be compared."
    assert said(results_of(tmp_path / "one", {})) == "Only lora is adapted: there is nothing to compare it with."
    write_cells(
        tmp_path / "apart", {"lora-s0": made_cell("lora", 1, 0, {"a": 1.0}), "poly-s1": made_cell("poly", 1, 1, {"a": 1.0})}
    )
    apart = "No method shares a task and a seed with lora, so none can be compared."
    assert said(read_results(tmp_path / "apart")) == apart


@pytest.mark.parametrize(
    ("gains", "seeds", "sentence"),
    [
        ((5.0,), 1, "1 test task of at least 5 and 1 seed of at least 3."),
        ((5.0,) * 4, 3, "4 test tasks of at least 5."),
        (STEADY, 2, "2 seeds of at least 3 (`grid.seeds` in params.yaml). So far 0 is outside the interval of poly."),
        (MIXED, 2, "2 seeds of at least 3 (`grid.seeds` in params.yaml). So far every interval holds 0."),
    ],
)
def test_too_few_tasks_or_seeds_say_nothing(tmp_path: Path, gains: tuple[float, ...], seeds: int, sentence: str) -> None:
    assert said(results_of(tmp_path, {"poly": gains}, seeds=seeds)) == f"Too few to say which method is better: {sentence}"


def test_an_interval_that_holds_nothing_is_open(tmp_path: Path) -> None:
    more = "More seeds (`grid.seeds` in params.yaml) or test tasks would narrow"
    one = results_of(tmp_path / "one", {"poly": MIXED})
    assert said(one) == f"poly does not differ from lora beyond doubt: the interval holds 0. {more} it."
    two = results_of(tmp_path / "two", {"poly": MIXED, "ia3": MIXED})
    assert said(two) == f"No method differs from lora beyond doubt: every interval holds 0. {more} them."


def test_better_and_worse_methods_are_named_with_their_differences(tmp_path: Path) -> None:
    worse = tuple(-gain for gain in STEADY)
    better = tuple(2 * gain for gain in STEADY)
    results = results_of(tmp_path, {"poly": STEADY, "ia3": worse, "poly_z": MIXED, "lora_big": better, "tfew": MIXED})
    assert said(results) == (
        "Better than lora beyond doubt: lora_big +3.60 (95%: +2.40 to +4.80), poly +1.80 (95%: +1.20 to +2.40)."
        " Worse than lora beyond doubt: ia3 -1.80 (95%: -2.40 to -1.20). Open: tfew, poly_z."
        " (One interval in 20 leaves 0 out by chance alone, and these are 5.)"
    )


def test_of_several_methods_those_with_too_little_are_named(tmp_path: Path) -> None:
    results_of(tmp_path, {"poly": STEADY})
    write_cells(tmp_path, {"ia3-s0": made_cell("ia3", 1, 0, dict.fromkeys(TASKS, 51.0))})
    assert said(read_results(tmp_path)).endswith("Too few tasks or seeds to say: ia3.")


def test_the_highest_mean_is_named_with_its_difference(tmp_path: Path) -> None:
    results = results_of(tmp_path, {"poly": STEADY, "ia3": MIXED})
    line = "Highest mean: poly, ROUGE-L 51.8, +1.80 over lora (95%: +1.20 to +2.40)."
    assert best_line(results, compare_all(results)) == line
    alone = results_of(tmp_path / "lora", {"poly": (-1.0,)})
    assert best_line(alone, compare_all(alone)) == "Highest mean: lora, ROUGE-L 50.0."
    same = results_of(tmp_path / "same", {"poly": (0.0,)})
    assert best_line(same, compare_all(same)) == "Highest mean: lora, poly, ROUGE-L 50.0."
    empty = read_results(tmp_path / "none")
    assert best_line(empty, {}) is None
