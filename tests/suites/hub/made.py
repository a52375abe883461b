"""Data sets on disk, in each form that `datasets` reads, and one that stands for the hub's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, disable_progress_bars

Rows = Sequence[Mapping[str, Any]]
disable_progress_bars()


def questions(number: int = 12, tasks: Sequence[str] = ("add", "sub", "mul")) -> list[dict[str, Any]]:
    """Rows of question, answer and task, the tasks in turn."""
    return [
        {"question": f"what is {index}", "answer": f"a{index}", "task": tasks[index % len(tasks)]} for index in range(number)
    ]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def labelled(number: int = 12, names: Sequence[str] = ("no", "yes")) -> Dataset:
    """A data set with class labels, sorted by them, as many on the hub are."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names)), "topic": Value("string")})
    labels = sorted(index % len(names) for index in range(number))
    texts, topics = [f"text {index}" for index in range(number)], ["tea", "rice"] * (number // 2)
    return Dataset.from_dict({"text": texts, "label": labels, "topic": topics}, features=features)


def save(path: Path, **splits: Dataset) -> Path:
    """Write splits as `save_to_disk` does; a single one called `only` as a `Dataset`."""
    (splits["only"] if "only" in splits else DatasetDict(splits)).save_to_disk(str(path))
    return path


class Stream:
    """What `load_dataset(streaming=True)` gives, as far as it is used."""

    def __init__(self, rows: Rows, features: Features | None = None) -> None:
        self.read, self.features, self._rows = 0, features, rows

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for row in self._rows:
            self.read += 1
            yield row
