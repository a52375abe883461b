"""Interleaved repetitions in thread CPU time, and ratios with their spread."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Steps = Mapping[str, Callable[[], object]]
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """A ratio that was measured several times.

    Attributes:
        median: over the repetitions.
        low: first quartile.
        high: third quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        spread = "" if self.low == self.high else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.median:.2f}{spread}"


def interleave(steps: Steps, *, repetitions: int, warmup: int = 1, clock: Callable[[], float] = time.thread_time) -> Times:
    """Time steps in turn, so that what slows the machine for a while slows all of them.

    The order is turned round in every other repetition. What was allocated before counts for no garbage collection.

    Args:
        steps: what is timed, by name.
        repetitions: of each.
        warmup: untimed calls of each before.
        clock: in seconds; the CPU time of this thread, which other processes do not lengthen, unless said otherwise.

    Returns:
        {name: seconds of each repetition, in order}.
    """
    for step in steps.values():
        for _ in range(warmup):
            step()
    gc.collect()
    gc.freeze()
    times: Times = {name: [] for name in steps}
    names = list(steps)
    for repetition in range(repetitions):
        for name in names if repetition % 2 == 0 else reversed(names):
            gc.collect()
            start = clock()
            steps[name]()
            times[name].append(clock() - start)
    gc.unfreeze()
    return times


def ratio(above: Sequence[float], below: Sequence[float], *, scale: float = 1.0) -> Ratio:
    """The ratio of two timings of one run, a repetition against the same repetition.

    Args:
        above: seconds of each repetition.
        below: likewise.
        scale: a factor, such as how often `above` must be done for the work of `below`.
    """
    return spread(scale * np.array(above) / np.array(below))


def spread(values: ArrayLike) -> Ratio:
    """The median of some numbers, with their quartiles."""
    low, median, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return Ratio(float(median), float(low), float(high))


def milliseconds(times: Times) -> dict[str, float]:
    """The median of each timing."""
    return {name: round(1000 * float(np.median(seconds)), 3) for name, seconds in times.items()}
