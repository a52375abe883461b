"""A test task's own examples are those outside of its test split: what an adapter of its own is trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mhrctl.artifacts.reading import reading
from mhrctl.data.examples import TOKEN_COLUMNS, Examples
from mhrctl.data.splits import training_split


@dataclass(frozen=True)
class OwnExamples:
    """These are the own examples of all test tasks.

    Attributes:
        rows: what training reads of them, each in the split `train` or `validation`.
        inputs: {test task: the prompts of its split `train`}.
    """

    rows: pa.Table
    inputs: dict[str, list[str]]

    @classmethod
    def read(cls, tests: Path) -> OwnExamples:
        """Divide each test task's examples as a training task's: a fifth, 25 at most, is to validate on.

        Args:
            tests: the examples file of the test tasks.
        """
        with reading(tests):
            table = pq.read_table(tests, columns=[*TOKEN_COLUMNS, "prompt"])
        parts, inputs = [], dict[str, list[str]]()
        for task in pc.unique(table["task"]).to_pylist():
            is_own = pc.and_(pc.equal(table["task"], task), pc.not_equal(table["split"], "test"))
            places = np.flatnonzero(is_own.to_numpy()).tolist()
            train, validation = training_split(places, size=len(places), seed=random.Random(task).randrange(2**32))
            inputs[task] = table["prompt"].take(pa.array(train, pa.int64())).to_pylist()
            parts += [_in_split(table, train, "train"), _in_split(table, validation, "validation")]
        return cls(pa.concat_tables(parts), inputs)

    def beside(self, examples: Examples) -> Examples:
        """Return the examples of training tasks with these behind them, as tasks of their own."""
        return examples.joined(self.rows, list(self.inputs))


def _in_split(table: pa.Table, places: list[int], split: str) -> pa.Table:
    part = table.select(TOKEN_COLUMNS).take(pa.array(places, pa.int64()))
    return part.set_column(part.column_names.index("split"), "split", pa.array([split] * len(part), pa.string()))
