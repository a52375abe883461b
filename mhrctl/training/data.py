"""Tokenised examples in memory-mapped columns, and the order in which training sees them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Label of padding, which no loss counts."""
_NOTHING = np.array([], np.int64)


@dataclass(frozen=True)
class Sample:
    """One training sample: an input with one of its references.

    Attributes:
        task: index of its task.
        input_ids: [length].
        target_ids: [target length], the end token included.
        choices: the answer choices like `target_ids`, if the task has any.
        gold: which of the choices is the target.
    """

    task: int
    input_ids: np.ndarray[Any, Any]
    target_ids: np.ndarray[Any, Any]
    choices: tuple[np.ndarray[Any, Any], ...] = ()
    gold: int = 0


class Examples:
    """Rows of an examples file of the prepare stage.

    Attributes:
        table: the rows.
        tasks: task names in order; a sample's task is an index into them.
    """

    def __init__(self, table: pa.Table, tasks: Sequence[str]) -> None:
        self.table, self.tasks = table.combine_chunks(), list(tasks)
        index = {name: number for number, name in enumerate(self.tasks)}
        self._task = [index[name] for name in self.table["task"].to_pylist()]
        self._inputs = _Ragged(self.table["input_ids"])
        self._targets, self._choices = _Nested(self.table["target_ids"]), _Nested(self.table["choice_ids"])
        self._gold = self.table["gold"].to_pylist()

    @classmethod
    def read(cls, path: Path, *, tasks: Sequence[str] | None = None) -> Examples:
        """Read an examples file; `tasks` are its tasks in the file's order if not given."""
        table = pq.read_table(path, memory_map=True)
        return cls(table, tasks or pc.unique(table["task"]).to_pylist())

    def __len__(self) -> int:
        return len(self._task)

    def of(self, *, task: str | None = None, split: str | None = None) -> Examples:
        """The examples of a task, of a split, or of both."""
        keep = np.ones(len(self), bool)
        for column, value in (("task", task), ("split", split)):
            if value is not None:
                keep &= pc.equal(self.table[column], value).to_numpy(zero_copy_only=False)
        return Examples(self.table.filter(pa.array(keep)), self.tasks)

    def take(self, rows: Sequence[int]) -> Examples:
        """The given rows, in the given order."""
        return Examples(self.table.take(pa.array(rows, pa.int64())), self.tasks)

    def scored(self) -> list[Sample]:
        """A sample a row, with the reference that scores count."""
        references = self.table["reference"].to_pylist()
        return [self._sample(row, reference) for row, reference in enumerate(references)]

    def all_references(self) -> list[Sample]:
        """A sample for each reference of each row, which is what training sees."""
        return [self._sample(row, number) for row in range(len(self)) for number in range(len(self._targets[row]))]

    @property
    def have_choices(self) -> bool:
        """Whether every row has answer choices."""
        return all(self.column("choices"))

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        values: list[Any] = self.table[name].to_pylist()
        return values

    def _sample(self, row: int, reference: int) -> Sample:
        target = self._targets[row][reference]
        gold = self._gold[row][reference] if self._gold[row] else 0
        return Sample(self._task[row], self._inputs[row], target, self._choices[row], gold)


class _Ragged:
    """Rows of a list column as views of one flat array."""

    def __init__(self, column: pa.ListArray | pa.ChunkedArray) -> None:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        self._values = array.values.to_numpy(zero_copy_only=False)
        self._offsets = array.offsets.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        view: np.ndarray[Any, Any] = self._values[self._offsets[row] : self._offsets[row + 1]]
        return view


class _Nested:
    """Rows of a column of lists of lists, each a tuple of views."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        self._lists = _Ragged(array.values)
        self._offsets = array.offsets.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> tuple[np.ndarray[Any, Any], ...]:
        return tuple(self._lists[number] for number in range(self._offsets[row], self._offsets[row + 1]))


class Order:
    """An endless shuffled order over `size` items: every epoch has each item once.

    Any part of it can be asked for, so a resumed run sees what the killed one would have seen.
    """

    def __init__(self, size: int, seed: int | str) -> None:
        if size < 1:
            raise ValueError("nothing to order")
        self.size, self.seed = size, seed
        self._epoch, self._shuffled = -1, [0]

    def slice(self, start: int, count: int) -> list[int]:
        """The items at positions start, ..., start + count - 1."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._shuffled = list(range(self.size))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._shuffled)
            self._epoch = epoch
        return self._shuffled[place]


@dataclass(frozen=True)
class Batch:
    """A padded batch of runs * groups consecutive groups of equally many rows.

    Attributes:
        task_ids: [runs, groups], the routing row of each group.
        input_ids: [rows, length].
        attention_mask: [rows, length].
        labels: [rows * choices, target length], padded with -100: the target of each row, or all its answer choices.
        choices: [rows], how many of its label rows are choices; 1 is the target alone.
        gold: [rows], which of them is the target.
    """

    task_ids: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    choices: Tensor
    gold: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


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
    lengths = torch.tensor([len(row.input_ids) for row in rows])
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    answers = [row.choices if with_choices and row.choices else (row.target_ids,) for row in rows]
    most = max(map(len, answers))
    padded = [_tensor(ids) for row in answers for ids in (*row, *[_NOTHING] * (most - len(row)))]
    labels = pad_sequence(padded, batch_first=True, padding_value=IGNORED)
    gold = [row.gold if len(own) > 1 else 0 for row, own in zip(rows, answers, strict=True)]
    return Batch(
        torch.tensor(task_ids), input_ids, mask, labels, torch.tensor([len(row) for row in answers]), torch.tensor(gold)
    )


def _tensor(ids: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))


class MixedBatches:
    """Micro-batches from all samples alike, every row a group with the routing of its task."""

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
        """Input and target tokens of a micro-batch, without padding."""
        return _tokens(self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        return [self._samples[row] for row in self._order.slice(micro * self._batch_size, self._batch_size)]


class RunBatches:
    """Micro-batches with equally many samples of each of several runs, each run a group."""

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
        """Input and target tokens of a micro-batch, without padding."""
        return _tokens(self._of(micro))

    def _of(self, micro: int) -> list[Sample]:
        size = self._batch_size
        return [
            run[row] for run, order in zip(self._samples, self._orders, strict=True) for row in order.slice(micro * size, size)
        ]


def _tokens(samples: Iterable[Sample]) -> int:
    return sum(len(sample.input_ids) + len(sample.target_ids) for sample in samples)
