"""Records of T0's test tasks are raw or rendered, and few-shot sets are made of them: docs/recipe.md, section 1.4."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mhrctl.errors import DataError
from mhrctl.suites.files import require_file, visible
from mhrctl.suites.reading import describe, one_line, parse, read_text
from mhrctl.suites.t0.promptsource import Rendering

LAYOUTS = "<task>/<k>_shot/<seed>_seed.jsonl as in T-Few's repository, or <task>/seed<N>.jsonl"
SEED_FILE = re.compile(r"(\d+)_seed|seed(\d+)")
T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """This is a record of a test task.

    Attributes:
        idx: its number in the split that it is of.
        where: it was read from.
        fields: as the data set has them; empty if the record comes rendered.
        renderings: by template, with the target; empty if the record is raw.
    """

    idx: int
    where: str
    fields: Mapping[str, Any]
    renderings: Mapping[str, Rendering]


class _Rendered(BaseModel):
    """A record rendered with one template, in P3's words; other keys are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    template: str
    idx: int
    inputs_pretokenized: str
    answer_choices: list[str] = Field(min_length=1)
    label: int = Field(ge=0)


def few_shot_files(few_shot: Path, task: str, *, shots: int) -> dict[int, Path]:
    """Find a task's few-shot sets.

    Args:
        few_shot: a folder in T-Few's layout, its `few_shot/` given or not, or of rendered files.
        task: its name, which is its folder's.
        shots: which of several `<k>_shot` folders to use.

    Returns:
        {seed: file}, sorted by seed.

    Raises:
        DataError: if there are none.
    """
    home = next((folder for folder in (few_shot / task, few_shot / "few_shot" / task) if folder.is_dir()), None)
    if not few_shot.is_dir():
        raise DataError(f"{few_shot}: no such folder; it must be a clone of r-three/t-few, or hold {LAYOUTS}")
    if home is None:
        raise DataError(f"{few_shot}: no few-shot sets of task {task!r}; it must hold {LAYOUTS}")
    by_shots = visible(sorted(home.glob("*_shot")))
    folder = home / f"{shots}_shot" if len(by_shots) > 1 else next(iter(by_shots), home)
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if match := SEED_FILE.fullmatch(path.stem):
            seed = int(match[1] or match[2])
            if seed in files:
                raise DataError(f"{path}: is of seed {seed}, as {files[seed]} is; remove one of them")
            files[seed] = path
    if not files:
        raise DataError(f"{folder}: no few-shot sets of task {task!r}; it must hold {LAYOUTS}")
    return dict(sorted(files.items()))


def drawn_sets(rows: Sequence[T], *, shots: int, seeds: Iterable[int]) -> dict[int, list[T]]:
    """Draw few-shot sets as T-Few and the paper's authors do: the first of the split, shuffled by numpy's old generator.

    Args:
        rows: the whole split in its order, on which the draw depends.
        shots: records of a set.
        seeds: one for each set.
    """
    drawn = {}
    for seed in seeds:
        order = list(range(len(rows)))
        np.random.RandomState(seed).shuffle(order)
        drawn[seed] = [rows[number] for number in order[:shots]]
    return drawn


def read_records(path: Path) -> list[Record]:
    """Read raw or rendered records from a `.jsonl` or `.parquet` file; the lines of a rendered record become one.

    Raises:
        DataError: naming file and line of what is malformed.
    """
    rows = list(_parquet_rows(path) if path.suffix == ".parquet" else _lines(path))
    if not rows:
        raise DataError(f"{path}: holds no records")
    if "inputs_pretokenized" in rows[0][1]:
        return _rendered_records(rows)
    return raw_records(rows)


def raw_records(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
    """Number raw (where, fields) by their own `idx`, or where they have none, in their order."""
    records: dict[int, Record] = {}
    for number, (where, fields) in enumerate(rows):
        idx = fields.get("idx", number)
        if not isinstance(idx, int):
            raise DataError(f"{where}: idx {idx!r} is no whole number")
        if idx in records:
            raise DataError(f"{where}: idx {idx} occurs twice, first in {records[idx].where}")
        records[idx] = Record(idx, where, fields, {})
    return list(records.values())


def _rendered_records(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
    records: dict[int, Record] = {}
    for where, content in rows:
        try:
            row = _Rendered.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{where}: {describe(error, _Rendered)}") from None
        if row.label >= len(row.answer_choices):
            raise DataError(f"{where}: label {row.label} of {len(row.answer_choices)} answer choices")
        record = records.setdefault(row.idx, Record(row.idx, where, {}, {}))
        if row.template in record.renderings:
            raise DataError(f"{where}: idx {row.idx} occurs twice with template {row.template!r}")
        choices = tuple(row.answer_choices)
        rendering = Rendering(row.template, row.inputs_pretokenized, choices[row.label], choices)
        records[row.idx] = replace(record, renderings={**record.renderings, row.template: rendering})
    return list(records.values())


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, text in enumerate(read_text(path).split("\n"), 1):  # splitlines would cut at U+2028, which JSON allows
        if text.strip():
            content = parse(text, path, number)
            if not isinstance(content, dict):
                raise DataError(f"{path}:{number}: should be a JSON object")
            yield f"{path}:{number}", content


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    require_file(path)
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {one_line(error)}; write it again") from None
    for number, row in enumerate(rows):
        yield f"{path}, row {number}", row
