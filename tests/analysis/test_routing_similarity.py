"""Which tasks a routing treats alike: by hand, by plain loops, and against scipy's statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from mhrctl.analysis.routing_measures import Array, Routing
from mhrctl.analysis.routing_similarity import (
    Pair,
    correlate,
    most_alike,
    pairs_of,
    routing_similarity,
    similarity_order,
)
from tests.analysis.test_routing_measures import LAYERS, random_routing


@pytest.mark.parametrize("from_even", [True, False])
def test_similarity_is_the_cosine_of_all_weights(from_even: bool) -> None:
    routing = random_routing()
    rows = np.concatenate([routing.weights(layer).reshape(5, -1) for layer in LAYERS], 1) - (0.25 if from_even else 0)
    similarity = routing_similarity(routing, from_even=from_even)
    for one in range(5):
        for other in range(5):
            expected = rows[one] @ rows[other] / math.sqrt((rows[one] @ rows[one]) * (rows[other] @ rows[other]))
            assert similarity[one, other] == pytest.approx(expected, abs=1e-6)


def test_opposite_preferences_are_unlike_and_no_preference_is_like_nothing() -> None:
    logits = np.array([[[3.0, -3.0]], [[-3.0, 3.0]], [[3.0, -3.0]], [[0.0, 0.0]]])
    similarity = routing_similarity(Routing(("a", "b", "c", "d"), {"model": logits}))
    np.testing.assert_allclose(similarity[0], [1, -1, 1, 0], atol=1e-6)
    assert not similarity[3].any()


def test_similar_tasks_become_neighbours() -> None:
    kinds = np.array([0, 1, 2, 0, 1, 2, 0])
    similarity = np.where(kinds[:, None] == kinds, 0.9, 0.1)
    np.fill_diagonal(similarity, 1)
    ordered = kinds[similarity_order(similarity)]
    assert sorted(similarity_order(similarity)) == list(range(7))
    assert (np.diff(ordered) != 0).sum() == 2
    assert similarity_order(np.ones((2, 2))) == [0, 1]


def symmetric(tasks: int, seed: int) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(tasks, tasks)).round(1)  # with ties
    return np.asarray(drawn + drawn.T)


@pytest.mark.parametrize("tests", [0, 4])
def test_the_correlation_is_scipys_over_the_pairs(tests: int) -> None:
    one, other = symmetric(12, 0), symmetric(12, 1) + 0.3 * symmetric(12, 0)
    pairs = pairs_of(12, tests)
    correlation = correlate(one, other, tests)
    assert correlation is not None
    assert correlation.pairs == (8 * 4 if tests else 12 * 11 / 2)
    assert correlation.spearman == pytest.approx(spearmanr(one[pairs], other[pairs]).statistic, abs=1e-6)
    if tests:
        assert set(pairs[0].tolist()) == {8, 9, 10, 11}
        assert set(pairs[1].tolist()) == set(range(8))


def test_the_correlation_of_equals_and_of_opposites() -> None:
    one = symmetric(20, 0)
    same, opposite = correlate(one, one**3), correlate(one, -one)
    assert same is not None
    assert opposite is not None
    assert [same.spearman, same.p] == pytest.approx([1, 0.001])
    assert [opposite.spearman, opposite.p] == pytest.approx([-1, 1])


def test_the_p_is_uniform_where_there_is_nothing() -> None:
    drawn = [correlate(symmetric(9, seed), symmetric(9, 100 + seed)) for seed in range(40)]
    assert 0.35 < np.mean([correlation.p for correlation in drawn if correlation]) < 0.65


def test_without_a_difference_between_pairs_there_is_no_correlation() -> None:
    assert correlate(np.ones((4, 4)), symmetric(4, 0)) is None
    assert correlate(symmetric(2, 0), symmetric(2, 1)) is None
    assert correlate(np.ones((1, 1)), np.ones((1, 1))) is None


def test_pairs_come_the_most_alike_first_and_equals_in_the_order_of_the_tasks() -> None:
    similarity = np.array([[1, 0.2, 0.9, 0.2], [0.2, 1, 0.2, -0.5], [0.9, 0.2, 1, 0.2], [0.2, -0.5, 0.2, 1]])
    pairs = most_alike("abcd", similarity, similarity / 2)
    assert ["".join(pair.tasks) for pair in pairs] == ["ac", "ab", "ad", "bc", "cd", "bd"]
    assert pairs[0] == Pair(("a", "c"), 0.9, 0.45)
    assert most_alike("abcd", similarity, at_most=2) == [Pair(("a", "c"), 0.9, None), Pair(("a", "b"), 0.2, None)]


def test_a_test_task_is_paired_with_the_training_task_most_like_it_alone() -> None:
    similarity = np.array([[1, 0.9, 0.1, 0.3], [0.9, 1, 0.2, 0.4], [0.1, 0.2, 1, 0.8], [0.3, 0.4, 0.8, 1]])
    assert most_alike("abxy", similarity, tests=2) == [Pair(("y", "b"), 0.4, None), Pair(("x", "b"), 0.2, None)]
