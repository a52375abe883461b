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
    best.record([0, 2], [1.0, 5.0], at(1, 3), rows=[0, 2])
    best.record([0, 1, 2], [2.0, -7.0, 5.0], at(2, 3), rows=[0, 1, 2])  # an equal score is not better
    best.record([2, 1], [4.0, -6.0], at(3, 2), rows=[1, 0])  # run 0 has left the batch
    assert best.scores.tolist() == [2.0, -6.0, 5.0]
    assert best.parameters["a"].tolist() == [[2, 0], [3, 0], [1, 2]]
    assert best.parameters["b"][:, 0, 0].tolist() == [2, 3, 1]


def test_the_start_stays_where_no_score_is_a_number() -> None:
    best = BestSteps(at(0, 1), patience=2)
    for step in (1, 2):
        assert not best.over(0)
        best.record([0], [math.nan], at(step, 1), rows=[0])
    assert best.over(0)
    assert best.parameters["a"].tolist() == [[0, 0]]


def test_what_is_kept_is_no_view_of_what_is_trained() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, 2))
    best = BestSteps({"a": parameter})
    best.record([0], [1.0], {"a": parameter}, rows=[0])
    with torch.no_grad():
        parameter.fill_(3.0)
    assert best.parameters["a"].tolist() == [[0.0, 0.0]]
    assert not best.parameters["a"].requires_grad


def test_patience_counts_the_scores_since_the_best() -> None:
    best = BestSteps(at(0, 2), patience=2)
    over = []
    for step, score in enumerate([1.0, 0.0, 2.0, 2.0, 1.0]):
        best.record([0], [score], at(step, 2), rows=[0])
        over.append(best.over(0))
    assert over == [False, False, False, False, True]
    assert not best.over(1)
    endless = BestSteps(at(0, 1))
    for step in range(9):
        endless.record([0], [-step], at(step, 1), rows=[0])
    assert not endless.over(0)
