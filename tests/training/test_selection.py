"""The step that is kept of each run, and when a run is over."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mhrctl.training.selection import BestSteps


def at(step: int, rows: int) -> dict[str, Tensor]:
    """Parameters that tell the step and the row."""
    return {"a": torch.tensor([[step, row] for row in range(rows)]), "b": torch.full((rows, 2, 3), step)}


def test_each_run_keeps_its_own_best_step() -> None:
    best = BestSteps(at(0, 3))
    assert best.scores.tolist() == [-math.inf] * 3
    best.record([0, 2], [1.0, 5.0], at(1, 3), rows=[0, 2], step=1)
    best.record([0, 1, 2], [2.0, -7.0, 5.0], at(2, 3), rows=[0, 1, 2], step=2)  # an equal score is not better
    best.record([2, 1], [4.0, -6.0], at(3, 2), rows=[1, 0], step=3)  # run 0 has left the batch
    assert best.scores.tolist() == [2.0, -6.0, 5.0]
    assert best.steps == [2, 3, 1]
    assert best.parameters["a"].tolist() == [[2, 0], [3, 0], [1, 2]]
    assert best.parameters["b"][:, 0, 0].tolist() == [2, 3, 1]


def test_the_start_stays_where_no_score_is_a_number() -> None:
    best = BestSteps(at(0, 1), patience=2)
    for step in (1, 2):
        assert not best.over(0)
        best.record([0], [math.nan], at(step, 1), rows=[0], step=step)
    assert best.over(0)
    assert best.parameters["a"].tolist() == [[0, 0]]


def test_what_is_kept_is_no_view_of_what_is_trained() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, 2))
    best = BestSteps({"a": parameter})
    best.record([0], [1.0], {"a": parameter}, rows=[0], step=1)
    with torch.no_grad():
        parameter.fill_(3.0)
    assert best.parameters["a"].tolist() == [[0.0, 0.0]]
    assert not best.parameters["a"].requires_grad


def test_patience_counts_the_scores_since_the_best() -> None:
    best = BestSteps(at(0, 2), patience=2)
    over = []
    for step, score in enumerate([1.0, 0.0, 2.0, 2.0, 1.0]):
        best.record([0], [score], at(step, 2), rows=[0], step=step)
        over.append(best.over(0))
    assert over == [False, False, False, False, True]
    assert not best.over(1)
    endless = BestSteps(at(0, 1))
    for step in range(9):
        endless.record([0], [-step], at(step, 1), rows=[0], step=step)
    assert not endless.over(0)


def test_scores_that_single_precision_takes_for_equal_differ_in_double() -> None:
    kept = {}
    for dtype in (torch.float32, torch.float64):
        best = BestSteps(at(0, 1), dtype=dtype)
        best.record([0], [-131.00002], at(1, 1), rows=[0], step=1)
        best.record([0], [-131.00001], at(2, 1), rows=[0], step=2)
        kept[dtype] = best.steps
    assert kept == {torch.float32: [1], torch.float64: [2]}


def test_a_record_that_is_restored_goes_on_as_it_would_have() -> None:
    best = BestSteps(at(0, 2), dtype=torch.float64)
    best.record([0, 1], [-0.3, -0.1], at(1, 2), rows=[0, 1], step=1)
    again = BestSteps(at(7, 2), dtype=torch.float64)
    again.restore(best.parameters, list(zip(best.steps, best.scores.tolist(), strict=True)))
    for record in (best, again):
        record.record([0, 1], [-0.2, -0.1], at(2, 2), rows=[0, 1], step=2)
    assert again.scores.tolist() == best.scores.tolist() == [-0.2, -0.1]
    assert again.steps == best.steps == [2, 1]
    trained = at(9, 2)
    again.put_into(trained)
    assert trained["a"].tolist() == [[2, 0], [1, 1]]
    assert trained["b"][:, 0, 0].tolist() == [2, 1]


def test_runs_without_parameters_are_scored_all_the_same() -> None:
    best = BestSteps({}, runs=2)
    best.record([1], [3.0], {}, [0], step=0)
    assert best.scores.tolist() == [-torch.inf, 3.0]
