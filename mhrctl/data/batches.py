"""Tokenised examples in memory-mapped columns, and the order in which training sees them."""

from __future__ import annotations

import os
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mhrctl.artifacts.outputs import digest

IGNORED = -100
"""Label of padding, which no loss counts."""
TOKEN_COLUMNS = ("task", "split", "reference", "input_ids", "target_ids", "choice_ids", "gold")
"""What training reads of an examples file."""
LARGE = 256 * 2**20
"""Bytes of an examples file from which on its tokens are mapped from disk: a matter of memory, not of results."""
_NOTHING = np.array([], np.int64)
Lengths = tuple[Sequence[int], Sequence[int]]
"""Tokens of each input, and of each label row."""
R_co = TypeVar("R_co", covariant=True)


class _Rows(Protocol[R_co]):
    """What gives a value for each row."""

    def __getitem__(self, row: int) -> R_co: ...


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
        tasks: task names in order; a sample's task is an index into them.
    """

    def __init__(self, table: pa.Table, tasks: Sequence[str], rows: np.ndarray[Any, Any] | None = None) -> None:
        """Look at some rows of a table.

        Args:
            table: the file's rows, in memory or mapped from disk.
            tasks: task names in order.
            rows: which rows, in which order; all if not given.
        """
        self._table, self.tasks = table, list(tasks)
        self._rows = np.arange(len(table)) if rows is None else rows
        self._inputs = _Chunked(table["input_ids"], _Ragged)
        self._targets, self._choices = _Chunked(table["target_ids"], _Nested), _Chunked(table["choice_ids"], _Nested)
        self._gold = _Chunked(table["gold"], _Ragged)

    @classmethod
    def read(cls, path: Path, *, tasks: Sequence[str] | None = None) -> Examples:
        """Read an examples file; `tasks` are its tasks in the file's order if not given."""
        table = pq.read_table(path, memory_map=True)
        return cls(table, tasks or pc.unique(table["task"]).to_pylist())

    @classmethod
    def open(cls, path: Path, scratch: Path) -> Examples:
        """Read the tokens of an examples file; those of a large one are mapped from an Arrow file in `scratch`."""
        if path.stat().st_size < LARGE:
            return cls.read(path)
        return cls.mapped(path, scratch / f"tokens-{digest(path)[:16]}.arrow")

    @classmethod
    def mapped(cls, path: Path, cache: Path) -> Examples:
        """Read the tokens of an examples file that need not fit into memory.

        Args:
            path: the file.
            cache: an Arrow file of its tokens, which is mapped; written if it is not there, a row group at a time.
        """
        if not cache.exists():
            source = pq.ParquetFile(path, memory_map=True)
            schema = pa.schema([source.schema_arrow.field(name) for name in TOKEN_COLUMNS])
            cache.parent.mkdir(parents=True, exist_ok=True)
            aside = cache.with_name(f".{cache.name}.{os.getpid()}")
            with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for group in range(source.num_row_groups):
                    writer.write_table(source.read_row_group(group, columns=list(TOKEN_COLUMNS)))
            aside.replace(cache)
        table = pa.ipc.open_file(pa.memory_map(str(cache))).read_all()
        return cls(table, pc.unique(table["task"]).to_pylist())

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _task(self) -> np.ndarray[Any, Any]:
        """[rows of the table], the index of each row's task."""
        return np.asarray(pc.index_in(self._table["task"], pa.array(self.tasks)))

    def of(self, *, tasks: Sequence[str] | None = None, split: str | None = None) -> Examples:
        """The examples of some tasks, of a split, or of both."""
        keep = np.ones(len(self._table), bool)
        if tasks is not None:
            keep &= np.isin(self._task, [self.tasks.index(task) for task in tasks])
        if split is not None:
            keep &= pc.equal(self._table["split"], split).to_numpy()
        return Examples(self._table, self.tasks, self._rows[keep[self._rows]])

    def take(self, rows: Sequence[int]) -> Examples:
        """The given rows, in the given order."""
        return Examples(self._table, self.tasks, self._rows[np.asarray(rows, np.int64)])

    def scored(self) -> list[Sample]:
        """A sample a row, with the reference that scores count."""
        references = self.column("reference")
        return [self._sample(row, reference) for row, reference in zip(self._rows, references, strict=True)]

    def all_references(self) -> Sequence[Sample]:
        """A sample for each reference of each row, which is what training sees; each is read when it is asked for."""
        return _References(self)

    def reference_counts(self) -> np.ndarray[Any, Any]:
        """[rows], how many references each row has."""
        counts = np.asarray(pc.list_value_length(self._table["target_ids"]))
        return counts[self._rows]

    def sample(self, place: int, reference: int) -> Sample:
        """A row with one of its references."""
        return self._sample(self._rows[place], reference)

    @property
    def have_choices(self) -> bool:
        """Whether every row has answer choices."""
        return all(self.column("choices"))

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        values: list[Any] = self._table[name].take(pa.array(self._rows)).to_pylist()
        return values

    def _sample(self, row: int, reference: int) -> Sample:
        gold = self._gold[row]
        return Sample(
            int(self._task[row]),
            self._inputs[row],
            self._targets[row][reference],
            self._choices[row],
            int(gold[reference]) if len(gold) else 0,
        )


class _References(Sequence[Sample]):
    """Every reference of every row, as samples."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._ends = np.cumsum(examples.reference_counts())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        row = int(np.searchsorted(self._ends, place, side="right"))
        return self._examples.sample(row, place - (int(self._ends[row - 1]) if row else 0))


class _Ragged:
    """Rows of a list array as views of one flat array."""

    def __init__(self, array: pa.ListArray) -> None:
        self._values = array.values.to_numpy(zero_copy_only=False)
        self._offsets = array.offsets.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        view: np.ndarray[Any, Any] = self._values[self._offsets[row] : self._offsets[row + 1]]
        return view


class _Nested:
    """Rows of an array of lists of lists, each a tuple of views."""

    def __init__(self, array: pa.ListArray) -> None:
        self._lists = _Ragged(array.values)
        self._offsets = array.offsets.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> tuple[np.ndarray[Any, Any], ...]:
        return tuple(self._lists[number] for number in range(self._offsets[row], self._offsets[row + 1]))


class _Chunked(Generic[R_co]):
    """Rows of a column that lies in several chunks, each seen through `kind`."""

    def __init__(self, column: pa.ChunkedArray, kind: Callable[[pa.ListArray], _Rows[R_co]]) -> None:
        self._chunks = [kind(chunk) for chunk in column.chunks]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])

    def __getitem__(self, row: int) -> R_co:
        chunk = bisect_right(self._starts, row) - 1
        return self._chunks[chunk][row - self._starts[chunk]]


class Order:
    """An endless shuffled order over `size` items: every epoch has each item once.

    Any part of it can be asked for, so a resumed run sees what the killed one would have seen.
    """

    def __init__(self, size: int, seed: int | str) -> None:
        if size < 1:
            raise ValueError("nothing to order")
        self.size, self.seed = size, seed
        self._epoch, self._shuffled = -1, array("l", [0])

    def slice(self, start: int, count: int) -> list[int]:
        """The items at positions start, ..., start + count - 1."""
        return [self._at(position) for position in range(start, start + count)]

    def batch(self, micro: int, size: int) -> list[int]:
        """The items of a micro-batch of `size`."""
        return self.slice(micro * size, size)

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._shuffled = array("l", range(self.size))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._shuffled)
            self._epoch = epoch
        return self._shuffled[place]


class GroupedOrder(Order):
    """An order over groups of items: every epoch has each group once, by one of its items, drawn anew."""

    def __init__(self, groups: Sequence[Sequence[int]], seed: int | str) -> None:
        super().__init__(len(groups), seed)
        self.groups = groups

    def _at(self, position: int) -> int:
        group = self.groups[super()._at(position)]
        return group[0] if len(group) == 1 else random.Random(f"{self.seed}/item/{position}").choice(group)


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
        """The batch on a device."""
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
    padded = [_tensor(ids) for row in answers for ids in (*row, *[_NOTHING] * (most - len(row)))]
    labels = pad_sequence(padded, batch_first=True, padding_value=IGNORED)
    gold = [row.gold if len(own) > 1 else 0 for row, own in zip(rows, answers, strict=True)]
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
        return [self._samples[row] for row in self._order.batch(micro, self._batch_size)]


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
        runs = zip(self._samples, self._orders, strict=True)
        return [run[row] for run, order in runs for row in order.batch(micro, self._batch_size)]


def _tokens(samples: Iterable[Sample]) -> int:
    return sum(len(sample.input_ids) + len(sample.target_ids) for sample in samples)
