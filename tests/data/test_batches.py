"""Order, rows of unequal lengths, and batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mhrctl.data.batches import GroupedOrder, MixedBatches, Order, Ragged, RunBatches, collate
from mhrctl.data.examples import Sample
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
    batch = collate([samples[0], samples[2]], [[0, 0]])
    assert batch.labels.tolist() == [[7, 1, -100], [8, 9, 1]]
    assert batch.inputs.mask().tolist() == [[1, 1, 1], [1, 1, 1]]
    assert batch.task_ids.shape == (1, 2)


ROWS = [[7, 8, 9], [], [4], [5, 6]]


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged.of([np.array(row, np.int32) for row in rows])


def test_rows_are_one_after_the_other() -> None:
    rows = ragged(ROWS)
    assert (rows.tokens.tolist(), rows.tokens.dtype, rows.lengths, rows.longest) == (
        [7, 8, 9, 4, 5, 6],
        torch.int64,
        (3, 0, 1, 2),
        3,
    )
    assert [row.tolist() for row in rows.tokens.split(rows.lengths)] == ROWS


@pytest.mark.parametrize("fill", [0, -100, 3])
def test_a_rectangle_is_filled_after_the_end_of_each_row(fill: int) -> None:
    assert ragged(ROWS).padded(fill).tolist() == [[7, 8, 9], [fill] * 3, [4, fill, fill], [5, 6, fill]]
    assert ragged(ROWS).mask().tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_rows_of_one_length_have_no_padding() -> None:
    assert ragged([[1, 2], [3, 4]]).padded(9).tolist() == [[1, 2], [3, 4]]
    assert ragged([[1, 2], [3, 4]]).mask().tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("rows", [[], [[], []]])
def test_without_tokens_the_rectangle_is_empty(rows: list[list[int]]) -> None:
    empty = ragged(rows)
    assert (empty.tokens.tolist(), empty.longest) == ([], 0)
    assert empty.padded(0).shape == empty.mask().shape == (len(rows), 0)
    assert empty.padded(0).dtype == empty.mask().dtype == torch.int64


def test_rows_and_their_rectangles_are_on_the_device_they_are_put_on() -> None:
    rows, meta = ragged(ROWS), torch.device("meta")
    there = rows.to(meta)
    assert there.lengths == rows.lengths
    assert {tensor.device for tensor in (there.tokens, there.padded(0), there.mask())} == {meta}
    assert there.padded(0).shape == there.mask().shape == (4, 3)
    assert torch.equal(rows.to(torch.device("cpu")).padded(1), rows.padded(1))


def samples_of(*rows: list[list[int]]) -> list[Sample]:
    """Samples of a task each, whose rows are the input, and then the choices, of which the last is right."""
    arrays = [[np.array(ids) for ids in row] for row in rows]
    return [Sample(task, row[0], row[-1], tuple(row[1:]), len(row) - 2) for task, row in enumerate(arrays)]


def test_choices_are_targets_as_many_for_each_and_empty_where_there_are_fewer() -> None:
    samples = samples_of([[5, 1], [7, 1], [8, 9, 1]], [[6], [4], [3, 1], [2, 1]])
    batch = collate(samples, [[0, 1]], with_choices=True)
    assert batch.inputs.padded(0).tolist() == [[5, 1], [6, 0]]
    assert batch.targets.lengths == (2, 3, 0, 1, 2, 2)
    assert batch.labels.tolist() == [[7, 1, -100], [8, 9, 1], [-100] * 3, [4, -100, -100], [3, 1, -100], [2, 1, -100]]
    assert (batch.choices.tolist(), batch.gold.tolist()) == ([2, 3], [1, 2])
    alone = collate(samples, [[0, 1]])
    assert (alone.labels.tolist(), alone.choices.tolist(), alone.gold.tolist()) == ([[8, 9, 1], [2, 1, -100]], [1, 1], [0, 0])


def test_all_of_a_batch_is_put_on_the_device() -> None:
    batch, meta = collate(samples_of([[5, 1], [7, 1]]), [[0]]), torch.device("meta")
    there = batch.to(meta)
    tensors = [there.task_ids, there.inputs.tokens, there.targets.tokens, there.labels, there.choices, there.gold]
    assert {tensor.device for tensor in tensors} == {meta}
    assert (there.inputs.lengths, there.targets.lengths) == (batch.inputs.lengths, batch.targets.lengths)


def test_batches_of_all_and_of_runs_count_their_real_tokens() -> None:
    samples = samples_of([[5, 1], [7, 1]], [[6, 5, 1], [4]], [[2], [3]])
    mixed, runs = MixedBatches(samples, Order(3, 0), 3), RunBatches([samples[:1], samples[1:]], [Order(1, 0), Order(2, 0)], 2)
    assert mixed(0).task_ids.tolist() == [Order(3, 0).slice(0, 3)]
    assert runs(0).task_ids.tolist() == [[0], [0]]
    for batches in (mixed, runs):
        batch = batches(0)
        assert batches.tokens(0) == len(batch.inputs.tokens) + len(batch.targets.tokens)


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
