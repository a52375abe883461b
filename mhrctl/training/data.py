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


@dataclass(frozen=True)
class Sample:
    """One training sample: an input with one of its references.

    Attributes:
        task: index of its task.
        input_ids: [length].
        target_ids: [target length], the end token included.
    """

    task: int
    input_ids: np.ndarray[Any, Any]
    target_ids: np.ndarray[Any, Any]


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
        self._targets = _Ragged(self.table["target_ids"].combine_chunks().values)
        self._first_target = _offsets(self.table["target_ids"])

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
        counts = np.diff(self._first_target)
        return [self._sample(row, reference) for row in range(len(self)) for reference in range(counts[row])]

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        values: list[Any] = self.table[name].to_pylist()
        return values

    def _sample(self, row: int, reference: int) -> Sample:
        return Sample(
            self._task[row],
            self._inputs[row],
            self._targets[self._first_target[row] - self._first_target[0] + reference],
        )


class _Ragged:
    """Rows of a list column as views of one flat array."""

    def __init__(self, column: pa.ListArray | pa.ChunkedArray) -> None:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        self._values = array.values.to_numpy(zero_copy_only=False)
        self._offsets = array.offsets.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        view: np.ndarray[Any, Any] = self._values[self._offsets[row] : self._offsets[row + 1]]
        return view


def _offsets(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    offsets: np.ndarray[Any, Any] = column.combine_chunks().offsets.to_numpy(zero_copy_only=False)
    return offsets


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
        labels: [rows, target length], padded with -100.
    """

    task_ids: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


def collate(samples: Iterable[Sample], task_ids: Sequence[Sequence[int]], *, pad: int) -> Batch:
    """Pad samples to the longest.

    Args:
        samples: in the order of the groups.
        task_ids: [runs, groups].
        pad: the padding token.
    """
    rows = list(samples)
    input_ids = pad_sequence([_tensor(row.input_ids) for row in rows], batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row.input_ids) for row in rows])
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    labels = pad_sequence([_tensor(row.target_ids) for row in rows], batch_first=True, padding_value=IGNORED)
    return Batch(torch.tensor(task_ids), input_ids, mask, labels)


def _tensor(ids: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))
