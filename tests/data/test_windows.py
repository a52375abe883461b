"""Windows: what meets in a micro-batch, that nothing is lost or seen twice, and how little is padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain, combinations, pairwise
from typing import Any

import numpy as np
import pytest

from mhrctl.data.batches import MixedBatches, Order
from mhrctl.data.examples import Sample
from mhrctl.data.windows import Balance, WindowedOrder, balanced_sizes

SIZE = 8
BALANCES: list[Balance] = ["rows", "tokens"]


def lognormal(count: int) -> list[Sample]:
    """Samples whose first token is their number, with lengths such as instructions have."""
    random = np.random.default_rng(0)
    inputs = random.lognormal(np.log(90), 0.8, count).clip(8, 512).astype(int)
    targets = random.lognormal(np.log(6), 1.0, count).clip(2, 64).astype(int)
    return [
        Sample(number % 5, np.array([number, *[7] * (length - 1)]), np.full(target, 9))
        for number, (length, target) in enumerate(zip(inputs, targets, strict=True))
    ]


SAMPLES = lognormal(1000)


def windowed(window: int, balance: Balance = "rows", samples: Sequence[Sample] = SAMPLES) -> WindowedOrder:
    return WindowedOrder(samples, "seed", window=window, balance=balance)


def padded(batch: Sequence[int]) -> int:
    inputs = max(len(SAMPLES[item].input_ids) for item in batch)
    return len(batch) * (inputs + max(len(SAMPLES[item].target_ids) for item in batch))


def real(batch: Sequence[int]) -> int:
    return sum(len(SAMPLES[item].input_ids) + len(SAMPLES[item].target_ids) for item in batch)


def test_a_window_of_one_is_the_plain_order() -> None:
    plain = Order(len(SAMPLES), "seed").slice(0, 300 * SIZE)
    order = windowed(1)
    assert [order.batch(micro, SIZE) for micro in range(300)] == [plain[at : at + SIZE] for at in range(0, 300 * SIZE, SIZE)]


@pytest.mark.parametrize("balance", BALANCES)
def test_an_epoch_has_every_example_once(balance: Balance) -> None:
    order = windowed(25, balance)
    epochs = [Counter(item for micro in range(at, at + 125) for item in order.batch(micro, SIZE)) for at in (0, 125)]
    assert epochs == [Counter(range(1000))] * 2
    assert order.batch(0, SIZE) != order.batch(125, SIZE)


@pytest.mark.parametrize("balance", BALANCES)
def test_a_window_that_fits_no_epoch_holds_what_the_plain_order_gives_next(balance: Balance) -> None:
    order, plain = windowed(7, balance), Order(len(SAMPLES), "seed")
    for number in range(40):  # beyond the second epoch
        drawn = [item for micro in range(number * 7, number * 7 + 7) for item in order.batch(micro, SIZE)]
        assert Counter(drawn) == Counter(plain.slice(number * 7 * SIZE, 7 * SIZE))


@pytest.mark.parametrize("balance", BALANCES)
def test_any_micro_batch_can_be_asked_for_alone(balance: Balance) -> None:
    order = windowed(16, balance)
    stream = [order.batch(micro, SIZE) for micro in range(200)]
    assert [windowed(16, balance).batch(micro, SIZE) for micro in (199, 0, 40, 17)] == [stream[at] for at in (199, 0, 40, 17)]
    spread = [windowed(16, balance) for _ in range(2)]  # two processes take turns
    assert [spread[micro % 2].batch(micro, SIZE) for micro in range(200)] == stream
    assert WindowedOrder(SAMPLES, "other", window=16, balance=balance).batch(0, SIZE) != stream[0]


def test_batches_of_a_window_are_neighbours_in_length_and_visited_in_no_order_of_it() -> None:
    order = windowed(16)
    batches = [order.batch(micro, SIZE) for micro in range(16)]
    assert {len(batch) for batch in batches} == {SIZE}
    lengths = [[(len(SAMPLES[item].input_ids), len(SAMPLES[item].target_ids)) for item in batch] for batch in batches]
    ascending = list(chain.from_iterable(sorted(lengths)))
    assert ascending == sorted(ascending)
    visits = [[padded(order.batch(window * 16 + place, SIZE)) for place in range(16)] for window in range(12)]
    assert len({visit.index(max(visit)) for visit in visits}) > 4  # the longest batch comes anywhere


def test_little_is_padding_in_a_window() -> None:
    def share(window: int, balance: Balance = "rows") -> float:
        order = windowed(window, balance)
        batches = [order.batch(micro, SIZE) for micro in range(125)]
        return 1 - sum(map(real, batches)) / sum(map(padded, batches))

    assert share(1) > 0.55
    assert share(25) < 0.2
    assert max(share(125), share(125, "tokens")) < 0.15  # most of it in the targets


def test_batches_balanced_by_tokens_cost_about_the_same() -> None:
    def imbalance(balance: Balance) -> list[Any]:
        """Of each window: tokens of its largest micro-batch over their mean."""
        order = windowed(25, balance)
        costs = [[padded(order.batch(micro, SIZE)) for micro in range(at, at + 25)] for at in range(0, 125, 25)]
        return [max(of_window) / np.mean(of_window) for of_window in costs]

    assert min(imbalance("rows")) > 2.5
    assert max(imbalance("tokens")) < 1.25
    rows = [len(windowed(25, "tokens").batch(micro, SIZE)) for micro in range(25)]
    assert min(rows) >= 1
    assert sum(rows) == 25 * SIZE


def test_sizes_are_the_best_of_all_cuts() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        lengths = [(int(length), int(target)) for length, target in zip(*np.sort(random.integers(1, 30, (2, 9))), strict=True)]
        random.shuffle(lengths)
        lengths.sort(key=lambda pair: pair[0])  # targets in any order

        def largest(sizes: Sequence[int], lengths: Sequence[tuple[int, int]] = lengths) -> int:
            parts = [lengths[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
            return max(len(part) * (max(length for length, _ in part) + max(length for _, length in part)) for part in parts)

        for batches in (1, 2, 4, 9):
            sizes = balanced_sizes(lengths, batches)
            assert (len(sizes), sum(sizes), min(sizes) > 0) == (batches, 9, True)
            cuts = [[b - a for a, b in pairwise((0, *inner, 9))] for inner in combinations(range(1, 9), batches - 1)]
            assert largest(sizes) == min(map(largest, cuts))


def test_samples_all_alike_are_cut_evenly() -> None:
    assert balanced_sizes([(5, 2)] * 12, 4) == [3, 3, 3, 3]
    assert sorted(balanced_sizes([(1, 1), (1, 1), (1, 1), (90, 9)], 3)) == [1, 1, 2]  # fewer would be as good


def test_mixed_batches_take_what_the_order_gives() -> None:
    order = windowed(8, "tokens")
    batches = MixedBatches(SAMPLES, order, SIZE)
    for micro in (0, 5, 19):
        batch, items = batches(micro), order.batch(micro, SIZE)
        assert batch.inputs.padded(0)[:, 0].tolist() == items
        assert batch.task_ids.tolist() == [[item % 5 for item in items]]
        assert batches.tokens(micro) == real(items)
