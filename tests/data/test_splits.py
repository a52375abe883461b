"""Splits: sizes, disjointness, determinism."""

from __future__ import annotations

import pytest

from mhrctl.data.splits import few_shot_split, held_out_size, training_split


@pytest.mark.parametrize(
    ("total", "train", "validation"),
    [
        (300, 100, 100),
        (210, 100, 100),
        (150, 100, 50),
        (126, 100, 26),
        (125, 100, 25),
        (104, 84, 20),
        (10, 8, 2),
        (1, 1, 0),
    ],
)
def test_training_split(total: int, train: int, validation: int) -> None:
    first, second = training_split(range(total), size=100, seed=42)
    assert (len(first), len(second)) == (train, validation)
    assert set(first).isdisjoint(second)
    assert training_split(range(total), size=100, seed=42) == (first, second)
    if total > 10:
        assert training_split(range(total), size=100, seed=43) != (first, second)


@pytest.mark.parametrize(("total", "size"), [(310, 100), (300, 100), (299, 99), (127, 42), (2, 0)])
def test_small_test_tasks_are_divided_into_thirds(total: int, size: int) -> None:
    assert held_out_size(total, size=100) == size


@pytest.mark.parametrize(("pool", "train", "validation"), [(200, 100, 100), (84, 42, 42), (5, 2, 3), (2, 1, 1)])
def test_few_shot_split(pool: int, train: int, validation: int) -> None:
    first, second = few_shot_split(range(pool), shots=100, validation=100, seed=13)
    assert (len(first), len(second)) == (train, validation)
    assert set(first).isdisjoint(second)
    assert few_shot_split(range(pool), shots=100, validation=100, seed=13) == (first, second)
    if pool > 10:
        assert few_shot_split(range(pool), shots=100, validation=100, seed=42) != (first, second)
