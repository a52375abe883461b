"""Samples are put into batches, in the order in which training sees them."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhrctl.data.examples import _NOTHING, Sample

IGNORED = -100
"""Label of padding, which no loss counts."""


@dataclass(frozen=True)
class Ragged:
    """These are rows of tokens of unequal lengths, one after the other: how they are padded or packed is the backbone's affair.

    Attributes:
        tokens: [sum of lengths].
        lengths: of each row; on the host, so that nobody waits for a device to know them.
    """

    tokens: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[np.ndarray[Any, Any]]) -> Ragged:
        """Put rows one after the other."""
        flat = np.concatenate(rows) if len(rows) else _NOTHING
        return cls(torch.from_numpy(flat.astype(np.int64)), tuple(map(len, rows)))

    @property
    def longest(self) -> int:
        """The length of the longest row."""
        return max(self.lengths, default=0)

    def to(self, device: torch.device) -> Ragged:
        """Return the rows on a device."""
        return Ragged(self.tokens.to(device, non_blocking=True), self.lengths)

    @cached_property
    def places(self) -> Tensor:
        """Where each token is in the flattened rectangle, [sum of lengths]; a step fills more than one."""
        return self._places(left=False)

    def _places(self, *, left: bool) -> Tensor:
        ends = [self.longest - length if left else 0 for length in self.lengths]
        starts = np.repeat(np.arange(len(self.lengths)) * self.longest + ends, self.lengths)
        places = starts + np.concatenate([np.arange(length) for length in self.lengths] or [_NOTHING])
        return torch.from_numpy(places.astype(np.int64)).to(self.tokens.device, non_blocking=True)

    def padded(self, fill: int, *, left: bool = False) -> Tensor:
        """Return the rows as a rectangle, [rows, longest], with `fill` after the end of each, or before it (`left`)."""
        places = self._places(left=True) if left else self.places
        rectangle = self.tokens.new_full((len(self.lengths) * self.longest,), fill)
        return rectangle.index_copy_(0, places, self.tokens).view(len(self.lengths), self.longest)

    def mask(self, *, left: bool = False) -> Tensor:
        """Return where the rectangle has tokens, [rows, longest], as ones among zeros."""
        columns, lengths = torch.arange(self.longest), torch.tensor(self.lengths)[:, None]
        mask = columns >= self.longest - lengths if left else columns < lengths
        return mask.long().to(self.tokens.device, non_blocking=True)


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
    """A batch is made of runs * groups consecutive groups of equally many rows.

    Attributes:
        task_ids: [runs, groups], the routing row of each group.
        inputs: a row an example.
        targets: the target of each example, or all its answer choices, equally many an example: one that is no choice is empty.
        choices: [rows], how many of its targets are choices; 1 is the target alone.
        gold: [rows], which of them is the target.
    """

    task_ids: Tensor
    inputs: Ragged
    targets: Ragged
    choices: Tensor
    gold: Tensor

    @cached_property
    def labels(self) -> Tensor:
        """The targets, [rows * choices, target length], with -100 after their ends, which no loss counts."""
        return self.targets.padded(IGNORED)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        task_ids, choices, gold = (each.to(device, non_blocking=True) for each in (self.task_ids, self.choices, self.gold))
        return Batch(task_ids, self.inputs.to(device), self.targets.to(device), choices, gold)


def collate(samples: Iterable[Sample], task_ids: Sequence[Sequence[int]], *, with_choices: bool = False) -> Batch:
    """Put samples into a batch.

    Args:
        samples: in the order of the groups.
        task_ids: [runs, groups].
        with_choices: whether targets are all answer choices of the samples that have any.
    """
    rows = list(samples)
    answers = [row.choices if with_choices and row.choices else (row.target_ids,) for row in rows]
    most = max(map(len, answers))
    targets = [ids for row in answers for ids in (*row, *[_NOTHING] * (most - len(row)))]
    gold = [row.gold if len(answer) > 1 else 0 for row, answer in zip(rows, answers, strict=True)]
    choices = [len(row) for row in answers]
    inputs = Ragged.of([row.input_ids for row in rows])
    return Batch(torch.tensor(task_ids), inputs, Ragged.of(targets), torch.tensor(choices), torch.tensor(gold))


class MixedBatches:
    """These are micro-batches from all samples alike, every row a group with the routing of its task."""

    def __init__(self, samples: Sequence[Sample], order: Order, batch_size: int, *, with_choices: bool = False) -> None:
        self._samples, self._order, self._batch_size, self._with_choices = samples, order, batch_size, with_choices

    def __call__(self, micro: int) -> Batch:
        """The micro-batch of a number."""
        samples = self._of(micro)
        ids = [[sample.task for sample in samples]]
        return collate(samples, ids, with_choices=self._with_choices)

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
        with_choices: bool = False,
    ) -> None:
        """Make the batches.

        Args:
            samples: of each run.
            orders: of each run, over its samples.
            batch_size: samples of each run in a micro-batch.
            with_choices: whether targets are all answer choices.
        """
        self._samples, self._orders, self._batch_size, self._with_choices = samples, orders, batch_size, with_choices

    def __call__(self, micro: int) -> Batch:
        """The micro-batch of a number."""
        return collate(self._of(micro), [[0]] * len(self._samples), with_choices=self._with_choices)

    def tokens(self, micro: int) -> int:
        """Count the input and target tokens of a micro-batch, without padding."""
        return _tokens(self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        runs = zip(self._samples, self._orders, strict=True)
        return [run[row] for run, order in runs for row in order.batch(micro, self._batch_size)]


def _tokens(samples: Iterable[Sample]) -> int:
    return sum(len(sample.input_ids) + len(sample.target_ids) for sample in samples)
