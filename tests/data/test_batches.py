"""Order and batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mhrctl.data.batches import GroupedOrder, Order, collate
from tests.data.test_examples import examples


def test_every_epoch_has_each_item_once_and_any_part_can_be_asked_for() -> None:
    order = Order(5, "seed")
    stream = order.slice(0, 20)
    assert all(Counter(stream[start : start + 5]) == Counter(range(5)) for start in range(0, 20, 5))
    assert stream[:5] != stream[5:10]
    assert Order(5, "seed").slice(7, 6) == stream[7:13]
    assert Order(5, "other").slice(0, 20) != stream


def test_padding_is_masked_and_ignored(tmp_path: Path) -> None:
    samples = examples(tmp_path).all_references()
    batch = collate([samples[0], samples[2]], [[0, 0]], pad=0)
    assert batch.labels.tolist() == [[7, 1, -100], [8, 9, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert batch.task_ids.shape == (1, 2)


def test_every_epoch_has_one_item_of_each_group() -> None:
    groups = [[0, 1, 2], [3], [4, 5]]
    order = GroupedOrder(groups, "seed")
    stream = order.slice(0, 600)
    owner = {item: number for number, group in enumerate(groups) for item in group}
    assert all({owner[item] for item in stream[start : start + 3]} == {0, 1, 2} for start in range(0, 600, 3))
    counts = Counter(stream)
    assert counts[3] == 200
    assert all(40 < counts[item] < 95 for item in (0, 1, 2))  # a third of 200 each
    assert order.slice(7, 5) == stream[7:12]
    assert GroupedOrder([[item] for item in range(5)], "seed").slice(0, 20) == Order(5, "seed").slice(0, 20)
