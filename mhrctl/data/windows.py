"""Micro-batches have similar lengths: a window's are drawn together, sorted by length, and visited in a shuffled order."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Literal

from mhrctl.data.batches import Order
from mhrctl.data.examples import Sample

Balance = Literal["rows", "tokens"]
"""What the micro-batches of a window have alike."""
SampleLengths = tuple[int, int]
"""Input and target tokens of a sample."""


class WindowedOrder(Order):
    """This is an order whose micro-batches hold samples of similar lengths, so that little of them is padding.

    The samples of `window` micro-batches are drawn together, sorted by input length, then target length, and cut into as
    many micro-batches. A window thus holds what it would hold without sorting, and an epoch each sample once; but who meets
    in a micro-batch is decided by length, and so in part by task: those with long inputs meet each other. The cut batches
    are shuffled, so training does not go from short to long.

    Losses know nothing of it: each micro-batch counts the same in training, so where they hold unequally many samples, one of
    a small micro-batch, which has a long input, weighs more than one of a large micro-batch.

    Any micro-batch can be asked for, so a resumed run sees what the killed one would have seen, and several processes share
    a window. With a window of 1 it is the plain order; `slice` always is.
    """

    def __init__(self, samples: Sequence[Sample], seed: int | str, *, window: int = 1, balance: Balance = "rows") -> None:
        """Order samples.

        Args:
            samples: what is ordered.
            seed: of the order, and of that in which the batches of a window are visited.
            window: micro-batches whose samples are drawn together.
            balance: `rows` gives each micro-batch of a window equally many samples; `tokens` about equally many tokens,
                padding included, and at least one sample.
        """
        super().__init__(len(samples), seed)
        self._samples, self._window, self._balance = samples, window, balance
        self._batches = lru_cache(maxsize=2)(self._drawn)  # a step may begin in one window and end in the next

    def batch(self, micro: int, size: int) -> list[int]:
        """Return the items of a micro-batch; with `balance` tokens, `size` of them are the mean over its window."""
        if self._window == 1:
            return super().batch(micro, size)
        number, place = divmod(micro, self._window)
        return self._batches(number, size)[place]

    def _drawn(self, number: int, size: int) -> list[list[int]]:
        """The micro-batches of a window, in the order in which they are visited."""
        count = self._window * size
        items = self.slice(number * count, count)
        lengths = {item: self._lengths(item) for item in items}
        items.sort(key=lengths.__getitem__)
        sizes = [size] * self._window
        if self._balance == "tokens":
            sizes = balanced_sizes([lengths[item] for item in items], self._window)
        batches = [items[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
        random.Random(f"{self.seed}/window/{number}").shuffle(batches)
        return batches

    def _lengths(self, item: int) -> SampleLengths:
        sample = self._samples[item]
        return len(sample.input_ids), len(sample.target_ids)


def balanced_sizes(lengths: Sequence[SampleLengths], batches: int) -> list[int]:
    """Cut sorted samples into batches so that the largest has as few tokens as can be, padding included.

    Args:
        lengths: of the samples, sorted; a batch takes consecutive ones.
        batches: how many; at most as many as samples.

    Returns:
        The samples of each batch, at least one.
    """
    # The more tokens a batch may have, the fewer batches are filled: bisection finds the smallest budget that makes do. It lies
    # between the longest sample alone and all samples in one batch.
    largest = len(lengths) * sum(map(max, zip(*lengths, strict=True)))
    alone = max(map(sum, lengths))
    budget = bisect_left(range(largest), x=True, lo=alone, key=lambda budget: len(_filled(lengths, budget)) <= batches)
    sizes = _filled(lengths, budget)
    while len(sizes) < batches:  # the smallest budget may need fewer
        most = max(range(len(sizes)), key=sizes.__getitem__)
        sizes[most : most + 1] = [sizes[most] // 2, sizes[most] - sizes[most] // 2]
    return sizes


def _filled(lengths: Sequence[SampleLengths], budget: int) -> list[int]:
    """The samples of each batch if each takes as many as its budget of padded tokens allows, and at least one."""
    sizes = [0]
    longest_input = longest_target = 0
    for inputs, targets in lengths:
        longest_input, longest_target = max(longest_input, inputs), max(longest_target, targets)
        if sizes[-1] and (sizes[-1] + 1) * (longest_input + longest_target) > budget:
            sizes.append(0)
            longest_input, longest_target = inputs, targets
        sizes[-1] += 1
    return sizes
