"""A paired bootstrap over tasks and seeds tells whether a difference between two methods is real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An interval is a mean difference and how sure it is.

    Attributes:
        mean: of the differences, over tasks and seeds.
        low: lower end of the percentile interval.
        high: upper end.
        not_above: share of the resamples whose mean is at or below 0.
    """

    mean: float
    low: float
    high: float
    not_above: float


def paired_bootstrap(
    differences: NDArray[np.float64], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Bootstrap the mean of paired differences.

    A resample draws as many tasks as there are, with replacement, and as many seeds, the same for all of its tasks; its mean is
    over all drawn tasks with all drawn seeds. So what the tasks of a seed have in common, such as a lucky pre-training, is
    drawn as a whole. Scores of both methods are drawn together, since they are paired.

    Args:
        differences: one method's scores less the other's, [tasks, seeds].
        resamples: how many.
        level: share of the resamples in the interval.
        seed: of the draws.

    Raises:
        ValueError: if there are no differences.
    """
    return interval_of(differences, resampled_means(differences, resamples=resamples, seed=seed), level=level)


def interval_of(differences: NDArray[np.float64], means: NDArray[np.float64], *, level: float = LEVEL) -> Interval:
    """Return the percentile interval of differences from the means of their resamples.

    Args:
        differences: [tasks, seeds].
        means: of `resampled_means`.
        level: share of the resamples in the interval.
    """
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(differences.mean()), float(low), float(high), float((means <= 0).mean()))


def resampled_means(differences: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Draw the means of which `paired_bootstrap` takes quantiles, [resamples].

    Args:
        differences: [tasks, seeds].
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: if there are no differences.
    """
    if differences.ndim != 2 or not differences.size:
        raise ValueError(f"differences of tasks and seeds wanted, not of shape {differences.shape}")
    tasks, seeds = differences.shape
    random = np.random.default_rng(seed)
    drawn_tasks = random.integers(tasks, size=(resamples, tasks, 1))
    drawn_seeds = random.integers(seeds, size=(resamples, 1, seeds))
    means: NDArray[np.float64] = differences[drawn_tasks, drawn_seeds].mean((1, 2))
    return means
