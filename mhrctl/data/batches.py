"""Samples are put into batches, in the order in which training sees them."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mhrctl.data.examples import _NOTHING, Sample

IGNORED = -100
"""Label of padding, which no loss counts."""
Lengths = tuple[Sequence[int], Sequence[int]]
"""Tokens of each input, and of each label row."""


class Order:
    """An order is an endless shuffled order over `size` items: every epoch has each item once.

    Any part of it can be asked for, so a resumed run sees what the killed one would have seen.
    """

    def __init__(self, size: int, seed: int | str) -> None:
        if size < 1:
            raise ValueError("nothing to order")
        self.size, self.seed = size, seed
        self._epoch, self._shuffled = -1, array("l", [0])

    def slice(self, start: int, count: int) -> list[int]:
        """Return the items at positions start, ..., start + count - 1."""
        return [self._at(position) for position in range(start, start + count)]

    def batch(self, micro: int, size: int) -> list[int]:
        """Return the items of a micro-batch of `size`."""
        return self.slice(micro * size, size)

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        # Every epoch is shuffled by a seed of its own, from the sorted order: it does not depend on which was asked for before.
        if epoch != self._epoch:
            self._shuffled = array("l", range(self.size))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._shuffled)
            self._epoch = epoch
        return self._shuffled[place]


class GroupedOrder(Order):
    """This is an order over groups of items: every epoch has each group once, by one of its items, drawn anew."""

    def __init__(self, groups: Sequence[Sequence[int]], seed: int | str) -> None:
        super().__init__(len(groups), seed)
        self.groups = groups

    def _at(self, position: int) -> int:
        group = self.groups[super()._at(position)]
        return group[0] if len(group) == 1 else random.Random(f"{self.seed}/item/{position}").choice(group)


@dataclass(frozen=True)
class Batch:
    """A batch is padded, and is made of runs * groups consecutive groups of equally many rows.

    Attributes:
        task_ids: [runs, groups], the routing row of each group.
        input_ids: [rows, length].
        attention_mask: [rows, length].
        labels: [rows * choices, target length], padded with -100: the target of each row, or all its answer choices.
        choices: [rows], how many of its label rows are choices; 1 is the target alone.
        gold: [rows], which of them is the target.
        lengths: tokens of each row of `input_ids`, and of each row of `labels`, where they are known.
    """

    task_ids: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    choices: Tensor
    gold: Tensor
    lengths: Lengths | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        tensors = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if name != "lengths"}
        return replace(self, **tensors)


def collate(samples: Iterable[Sample], task_ids: Sequence[Sequence[int]], *, pad: int, with_choices: bool = False) -> Batch:
    """Pad samples to the longest, and to the most answer choices.

    Args:
        samples: in the order of the groups.
        task_ids: [runs, groups].
        pad: the padding token.
        with_choices: whether labels are all answer choices of the samples that have any.
    """
    rows = list(samples)
    input_ids = pad_sequence([_tensor(row.input_ids) for row in rows], batch_first=True, padding_value=pad)
    lengths = [len(row.input_ids) for row in rows]
    mask = (torch.arange(input_ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    answers = [row.choices if with_choices and row.choices else (row.target_ids,) for row in rows]
    most = max(map(len, answers))
    # Every row has as many label rows as the one with most choices; one that is no choice is all padding, which no loss counts.
    padded = [_tensor(ids) for row in answers for ids in (*row, *[_NOTHING] * (most - len(row)))]
    labels = pad_sequence(padded, batch_first=True, padding_value=IGNORED)
    gold = [row.gold if len(answer) > 1 else 0 for row, answer in zip(rows, answers, strict=True)]
    choices = [len(row) for row in answers]
    return Batch(
        torch.tensor(task_ids),
        input_ids,
        mask,
        labels,
        torch.tensor(choices),
        torch.tensor(gold),
        (lengths, [len(ids) for ids in padded]),
    )


def _tensor(ids: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))


class MixedBatches:
    """These are micro-batches from all samples alike, every row a group with the routing of its task."""

    def __init__(
        self, samples: Sequence[Sample], order: Order, batch_size: int, *, pad: int, with_choices: bool = False
    ) -> None:
        self._samples, self._order, self._batch_size = samples, order, batch_size
        self._pad, self._with_choices = pad, with_choices

    def __call__(self, micro: int) -> Batch:
        """The micro-batch of a number."""
        samples = self._of(micro)
        ids = [[sample.task for sample in samples]]
        return collate(samples, ids, pad=self._pad, with_choices=self._with_choices)

    def tokens(self, micro: int) -> int:
        """Count the input and target tokens of a micro-batch, without padding."""
        return _tokens(self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        return [self._samples[row] for row in self._order.batch(micro, self._batch_size)]


class RunBatches:
    """These are micro-batches with equally many samples of each of several runs, each run a group."""

    def __init__(
        self,
        samples: Sequence[Sequence[Sample]],
        orders: Sequence[Order],
        batch_size: int,
        *,
        pad: int,
        with_choices: bool = False,
    ) -> None:
        """Make the batches.

        Args:
            samples: of each run.
            orders: of each run, over its samples.
            batch_size: samples of each run in a micro-batch.
            pad: the padding token.
            with_choices: whether labels are all answer choices.
        """
        self._samples, self._orders, self._batch_size = samples, orders, batch_size
        self._pad, self._with_choices = pad, with_choices

    def __call__(self, micro: int) -> Batch:
        """The micro-batch of a number."""
        return collate(self._of(micro), [[0]] * len(self._samples), pad=self._pad, with_choices=self._with_choices)

    def tokens(self, micro: int) -> int:
        """Count the input and target tokens of a micro-batch, without padding."""
        return _tokens(self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        runs = zip(self._samples, self._orders, strict=True)
        return [run[row] for run, order in runs for row in order.batch(micro, self._batch_size)]


def _tokens(samples: Iterable[Sample]) -> int:
    return sum(len(sample.input_ids) + len(sample.target_ids) for sample in samples)
