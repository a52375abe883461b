"""Training and scoring draw their samples from the examples that the prepare stage wrote."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mhrctl.artifacts.cards import known_digest
from mhrctl.artifacts.noting import is_noted, note
from mhrctl.artifacts.reading import reading, verify
from mhrctl.artifacts.writing import replacing

TOKEN_COLUMNS = ("task", "split", "reference", "input_ids", "target_ids", "choice_ids", "gold")
"""What training reads of an examples file."""


LARGE = 256 * 2**20
"""Bytes of an examples file from which on its tokens are mapped from disk: a matter of memory, not of results."""


_NOTHING = np.array([], np.int64)


R_co = TypeVar("R_co", covariant=True)


class _Rows(Protocol[R_co]):
    """What gives a value for each row."""

    def __getitem__(self, row: int) -> R_co: ...


@dataclass(frozen=True)
class Sample:
    """A sample is one to train on: an input with one of its references.

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
    """Examples are rows of an examples file of the prepare stage.

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
        with reading(path):
            table = pq.read_table(path, memory_map=True)
            return cls(table, tasks or pc.unique(table["task"]).to_pylist())

    @classmethod
    def open(cls, path: Path, scratch: Path) -> Examples:
        """Read the tokens of an examples file; those of a large one are mapped from an Arrow file in `scratch`."""
        if not path.is_file() or path.stat().st_size < LARGE:
            return cls.read(path)
        return cls.mapped(path, scratch / f"tokens-{known_digest(path)[:16]}.arrow")

    @classmethod
    def mapped(cls, path: Path, cache: Path) -> Examples:
        """Read the tokens of an examples file that need not fit into memory.

        Args:
            path: the file.
            cache: an Arrow file of its tokens, which is mapped; written if it is not there as it was written, a row group at
                a time.
        """
        verify(path)
        if not is_noted(cache):
            source = pq.ParquetFile(path, memory_map=True)
            schema = pa.schema([source.schema_arrow.field(name) for name in TOKEN_COLUMNS])
            with (
                replacing(cache) as aside,
                pa.OSFile(str(aside), "wb") as sink,
                pa.ipc.new_file(sink, schema) as writer,
            ):
                for group in range(source.num_row_groups):
                    writer.write_table(source.read_row_group(group, columns=list(TOKEN_COLUMNS)))
            note(cache)
        table = pa.ipc.open_file(pa.memory_map(str(cache))).read_all()
        return cls(table, pc.unique(table["task"]).to_pylist())

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _task(self) -> np.ndarray[Any, Any]:
        """[rows of the table], the index of each row's task."""
        return np.asarray(pc.index_in(self._table["task"], pa.array(self.tasks)))

    def of(self, *, tasks: Sequence[str] | None = None, split: str | None = None) -> Examples:
        """Return the examples of some tasks, of a split, or of both."""
        keep = np.ones(len(self._table), bool)
        if tasks is not None:
            keep &= np.isin(self._task, [self.tasks.index(task) for task in tasks])
        if split is not None:
            keep &= pc.equal(self._table["split"], split).to_numpy()
        return Examples(self._table, self.tasks, self._rows[keep[self._rows]])

    def take(self, rows: Sequence[int]) -> Examples:
        """Return the given rows, in the given order."""
        return Examples(self._table, self.tasks, self._rows[np.asarray(rows, np.int64)])

    def joined(self, rows: pa.Table, tasks: Sequence[str]) -> Examples:
        """Return these examples and those of further tasks, behind them.

        Args:
            rows: of the further tasks, with the columns that training reads.
            tasks: their names.
        """
        table = pa.concat_tables([self._table.select(TOKEN_COLUMNS), rows.select(TOKEN_COLUMNS)])
        further = np.arange(len(self._table), len(table))
        return Examples(table, [*self.tasks, *tasks], np.concatenate([self._rows, further]))

    def scored(self) -> list[Sample]:
        """Return a sample a row, with the reference that scores count."""
        references = self.column("reference")
        return [self._sample(row, reference) for row, reference in zip(self._rows, references, strict=True)]

    def all_references(self) -> Sequence[Sample]:
        """Return a sample for each reference of each row, which is what training sees; each is read when it is asked for."""
        return _References(self)

    def reference_counts(self) -> np.ndarray[Any, Any]:
        """Return how many references each row has, [rows]."""
        counts = np.asarray(pc.list_value_length(self._table["target_ids"]))
        return counts[self._rows]

    def sample(self, place: int, reference: int) -> Sample:
        """Return a row with one of its references."""
        return self._sample(self._rows[place], reference)

    def column(self, name: str) -> list[Any]:
        """Return a column as Python values."""
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
        # `values` is the whole flat array, whatever part of it a slice has; offsets count in it, so a slice needs no shift.
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
