"""Which trials of a search are reported, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mhrctl.evaluation.scores import CellMetrics
from mhrctl.report.results import Group, fold_seeds
from mhrctl.report.trials import Choice
from tests.report.made import both, made_cell


def group_of(cells: dict[str, dict[str, Any]], trials: Choice = "by_task") -> Group:
    (group,) = fold_seeds({name: CellMetrics.model_validate(cell) for name, cell in cells.items()}, trials)
    return group


def search(*validations: tuple[float | None, float | None], seeds: int = 2) -> dict[str, dict[str, Any]]:
    """A trial for each pair of mean validation scores, of tasks one and two.

    The first seed is a point above them, the second a point below. Trial N scores 60 + N on the mean, one ten below two.
    """
    cells = {}
    for trial, of_tasks in enumerate(validations, 1):
        for seed in range(seeds):
            cell = made_cell("mhr", 8, seed, both(60.0 + trial), trial=trial, settings={"lr": trial / 1000})
            for task, validation in zip(("one", "two"), of_tasks, strict=True):
                cell["by_task"][task]["validation"] = None if validation is None else validation + 1 - 2 * seed
            known = [validation for validation in of_tasks if validation is not None]
            cell["validation"] = sum(known) / 2 + 1 - 2 * seed if len(known) == 2 else None
            cells[f"mhr-h8-t{trial}-s{seed}"] = cell
    return cells


def test_each_task_has_the_trial_that_its_own_validation_chooses() -> None:
    group = group_of(search((50.0, 90.0), (60.0, 50.0), (10.0, 89.0)))
    assert list(group.cells) == ["mhr-h8-s0", "mhr-h8-s1"]
    # task one of trial 2: 62 - 5; task two of trial 1: 61 + 5
    assert group.by_task("adapted") == {"one": {0: 57.0, 1: 57.0}, "two": {0: 66.0, 1: 66.0}}
    assert group.values("adapted") == group.values("adapted", "rouge_l") == [61.5, 61.5]
    assert group.mean("adapted", "exact_match") is None  # of no task is it known
    assert [cell.validation for cell in group.cells.values()] == [76.0, 74.0]
    assert group.note == (
        "mhr-h8: of 3 trials each task has the one with its best mean validation score:"
        " number 1 (lr 0.001) in 1, number 2 (lr 0.002) in 1 of 2 tasks."
    )


def test_the_choice_is_the_same_for_all_seeds() -> None:
    cells = search((50.0, 50.0), (60.0, 60.0))
    cells["mhr-h8-t1-s0"]["by_task"]["one"]["validation"] = 65.0  # the best of its seed; 57 on the mean
    assert list(group_of(cells).cells) == ["mhr-h8-t2-s0", "mhr-h8-t2-s1"]


def test_of_equal_trials_a_task_has_the_first() -> None:
    assert group_of(search((50.0, 50.0), (50.0, 50.0))).values("adapted") == [61.0, 61.0]


def test_overall_the_trial_with_the_best_mean_validation_score_counts_for_all_tasks() -> None:
    cells = search((50.0, 90.0), (60.0, 50.0))
    cells["mhr-h8-t2-s0"]["validation"] = 71.5  # the best of its seed, and not on the mean
    group = group_of(cells, "overall")
    assert list(group.cells) == ["mhr-h8-t1-s0", "mhr-h8-t1-s1"]
    assert group.values("adapted") == [61.0, 61.0]
    assert group.note == "mhr-h8: of 2 trials number 1 has the best mean validation score, 70.0 (lr 0.001); for all tasks."


@pytest.mark.parametrize("choice", ["by_task", "overall"])
def test_a_trial_that_lacks_seeds_is_not_chosen(choice: Choice) -> None:
    cells = search((50.0, 50.0), (60.0, 60.0))
    del cells["mhr-h8-t2-s1"]
    group = group_of(cells, choice)
    assert list(group.cells) == ["mhr-h8-t1-s0", "mhr-h8-t1-s1"]
    assert "of those with 2 seeds" in group.note


def test_trials_of_other_seeds_are_not_mixed() -> None:
    cells = search((50.0, 50.0), (60.0, 40.0))
    cells["mhr-h8-t2-s2"] = cells.pop("mhr-h8-t2-s0") | {"seed": 2}
    assert list(group_of(cells).cells) == ["mhr-h8-t1-s0", "mhr-h8-t1-s1"]


@pytest.mark.parametrize("choice", ["by_task", "overall"])
def test_of_trials_without_validation_scores_the_first_is_shown(choice: Choice) -> None:
    group = group_of(search((None, None), (None, None)), choice)
    assert list(group.cells) == ["mhr-h8-t1-s0", "mhr-h8-t1-s1"]
    assert "number 1 is the first; no trial has validation scores" in group.note


def test_a_task_without_validation_scores_has_the_first() -> None:
    group = group_of(search((None, 50.0), (None, 60.0)))
    assert group.by_task("adapted") == {"one": {0: 56.0, 1: 56.0}, "two": {0: 67.0, 1: 67.0}}
    assert "in 1 of 2 tasks; 1 without validation scores have the first." in group.note


def test_one_trial_needs_no_note() -> None:
    assert group_of(search((50.0, 50.0))).note == ""
