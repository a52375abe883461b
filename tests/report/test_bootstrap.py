"""The paired bootstrap against plain loops, and where its answer is known."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest

from mhrctl.report.bootstrap import paired_bootstrap


def plain_bootstrap(differences: list[list[float]], resamples: int) -> list[float]:
    """The same by the book: tasks drawn, and seeds drawn for all of them; sorted means."""
    draw = random.Random(1)
    means = []
    for _ in range(resamples):
        tasks = [differences[draw.randrange(len(differences))] for _ in differences]
        seeds = [draw.randrange(len(differences[0])) for _ in differences[0]]
        means.append(fmean(task[seed] for task in tasks for seed in seeds))
    return sorted(means)


def test_the_interval_is_that_of_plain_loops() -> None:
    scores = np.random.default_rng(3).normal(1.0, 4.0, size=(7, 3))
    interval = paired_bootstrap(scores, resamples=20_000)
    means = plain_bootstrap(scores.tolist(), 20_000)
    assert interval.mean == pytest.approx(fmean(scores.ravel()))
    assert interval.low == pytest.approx(means[500], abs=0.12)
    assert interval.high == pytest.approx(means[19_500], abs=0.12)
    assert interval.not_above == pytest.approx(fmean(mean <= 0 for mean in means), abs=0.01)


def test_equal_methods_differ_by_nothing() -> None:
    interval = paired_bootstrap(np.zeros((5, 3)))
    assert (interval.mean, interval.low, interval.high, interval.not_above) == (0, 0, 0, 1)


def test_noise_around_nothing_has_0_in_its_interval() -> None:
    noise = np.random.default_rng(0).normal(0, 3, size=(12, 3))
    interval = paired_bootstrap(noise - noise.mean())
    assert interval.low < 0 < interval.high
    assert interval.not_above == pytest.approx(0.5, abs=0.05)


def test_a_constant_shift_is_the_interval() -> None:
    interval = paired_bootstrap(np.full((5, 3), 2.5))
    assert (interval.mean, interval.low, interval.high, interval.not_above) == (2.5, 2.5, 2.5, 0)


def test_the_same_seed_gives_the_same_interval_and_another_a_close_one() -> None:
    scores = np.random.default_rng(5).normal(0, 1, size=(10, 2))
    assert paired_bootstrap(scores) == paired_bootstrap(scores)
    other = paired_bootstrap(scores, seed=1)
    assert other != paired_bootstrap(scores)
    assert other.low == pytest.approx(paired_bootstrap(scores).low, abs=0.05)


def test_a_lucky_seed_of_all_tasks_makes_a_wide_interval() -> None:
    lucky = np.zeros((50, 2))
    lucky[:, 0] = 2.0
    interval = paired_bootstrap(lucky)
    assert (interval.mean, interval.low, interval.high) == (1, 0, 2)
    assert interval.not_above == pytest.approx(0.25, abs=0.02)


def test_few_tasks_make_a_wide_interval() -> None:
    scores = np.random.default_rng(7).normal(0, 1, size=(48, 30))
    few, many = paired_bootstrap(scores[:6]), paired_bootstrap(scores)
    assert few.high - few.low > 2 * (many.high - many.low)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4,)])
def test_no_differences_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="differences of tasks and seeds wanted"):
        paired_bootstrap(np.zeros(shape))
