"""Scores by hand."""

from __future__ import annotations

import pytest

from mhrctl.evaluation.metrics import exact_match, rouge_l


@pytest.mark.parametrize(
    ("prediction", "references", "rouge", "exact"),
    [
        ("the cats sat", ["the cat sat"], 100.0, 0.0),  # the stemmer folds cats and cat
        ("a b", ["a b c d"], 200 / 3, 0.0),
        ("x", ["a", "X."], 100.0, 100.0),
        ("", ["a"], 0.0, 0.0),
        ("The dog", ["dog"], 200 / 3, 0.0),  # articles stay
    ],
)
def test_scores_by_hand(prediction: str, references: list[str], rouge: float, exact: float) -> None:
    assert rouge_l(prediction, references) == pytest.approx(rouge)
    assert exact_match(prediction, references) == exact
