"""P3, the prompted data sets of T0, is a training mixture: docs/recipe.md, sections 1.1 to 1.3.

P3 has one configuration for each prompt template of a data set. Its rows are never held: tasks read them as they are needed,
a batch at a time, and only the columns of text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mhrctl.errors import DataError
from mhrctl.suites.files import require_file, visible
from mhrctl.suites.reading import hub_errors, one_line
from mhrctl.suites.task import Example, Suite, Task

TEMPLATES, DATA_SETS = 313, 38
"""Tasks of T0's training mixture, counted as the paper counts them."""
MAX_ROWS = 500_000
"""Rows of a data set, all its templates together, that the mixture takes at most."""
TEXT = ("inputs_pretokenized", "targets_pretokenized")
CHOICES = "answer_choices"
BLANK = "rows of P3 without an input or a target"
"""A note: what is passed over."""
BATCH = 1000
"""Rows in memory at a time; from the hub, at least a row group."""
BUFFER = 1 << 20
"""Bytes of a column that are read ahead from a file."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
SHARD = re.compile(r"train-\d{5}-of-(\d{5})\.parquet")


@dataclass(frozen=True)
class P3Template:
    """This is a prompt template of the training mixture, with which its data set became a configuration of P3.

    Attributes:
        name: of the configuration.
        dataset: on the hub, when P3 was made.
        subset: of the data set, if it has any.
        template: promptsource's name.
        train_size: training rows of the data set.
        p3_rows: training rows of the configuration; rows that the template renders as nothing are not in P3.
        original_task: whether the template asks what the data set was made for.
    """

    name: str
    dataset: str
    subset: str | None
    template: str
    train_size: int
    p3_rows: int
    original_task: bool

    @property
    def data_set(self) -> str:
        """The data set's name as a task."""
        return p3_name(self.dataset, self.subset)


@cache
def p3_templates() -> tuple[P3Template, ...]:
    """Return the 313 templates of T0's training mixture, sorted by name.

    Raises:
        DataError: if the package's table is not whole.
    """
    table = files("mhrctl.suites.t0") / "tasks.json"
    templates = tuple(P3Template(**row) for row in json.loads(table.read_text(encoding="utf-8")))
    counts = len({template.name for template in templates}), len({template.data_set for template in templates})
    if counts != (TEMPLATES, DATA_SETS):
        raise DataError(
            f"{table}: {counts[0]} tasks of {counts[1]} data sets, not {TEMPLATES} of {DATA_SETS}; install mhrctl again"
        )
    return templates


def p3_name(dataset: str, subset: str | None, template: str | None = None) -> str:
    """Return P3's name of a template's configuration, or in that manner of a whole data set (docs/recipe.md, section 1.2)."""
    parts = [part for part in (dataset, subset, template) if part is not None]
    return re.sub(r"[^\w.]+", "_", "_".join(parts))


def capped_rows(template: P3Template, *, max_rows: int = MAX_ROWS) -> int:
    """Count how many of a configuration's rows the mixture takes: part of `max_rows`, or all (docs/recipe.md, section 1.3)."""
    return min(template.train_size, max_rows // _sizes()[template.data_set])


@cache
def _sizes() -> Counter[str]:
    """How many templates each data set has."""
    return Counter(template.data_set for template in p3_templates())


def training_tasks(*, source: str, revision: str | None, by: Literal["template", "dataset"], max_rows: int = MAX_ROWS) -> Suite:
    """Return the training mixture of T0 as tasks whose examples are streamed.

    Args:
        source: hub id of P3 (`bigscience/P3`), or a folder of the same form, which may hold some of its configurations only.
        revision: commit, tag or branch on the hub.
        by: `template` makes each template a task, 313 in all; `dataset` each data set, 38 in all, with the examples of its
            templates one after the other.
        max_rows: of a data set, all its templates together.

    Returns:
        The tasks, and by name what a folder lacks.

    Raises:
        DataError: if there is no such folder, or no configuration of the mixture in it.
    """
    folder = Path(source) if Path(source).is_dir() else None
    if not folder and not HUB_ID.fullmatch(source):
        raise DataError(f"{source}: no such folder, and no id on the hub, as `bigscience/P3` is")
    groups: dict[str, list[P3Template]] = {}
    dropped: dict[str, str] = {}
    for template in p3_templates():
        if folder and not _shards(folder / template.name):
            dropped[template.name] = f"{folder / template.name} holds no train-*.parquet"
        else:
            groups.setdefault(template.name if by == "template" else template.data_set, []).append(template)
    if not groups:
        raise DataError(f"{source}: none of the {TEMPLATES} configurations of P3 that T0 trains on is in this folder")
    stream = partial(_stream, source=source, revision=revision, max_rows=max_rows, named=by == "dataset")
    tasks = [
        Task(name, "training", "rouge_l", "", [], dataset=templates[0].data_set, stream=partial(stream, templates))
        for name, templates in sorted(groups.items())
    ]
    return Suite("t0", tasks, dropped)


def _stream(
    templates: list[P3Template],
    notes: Counter[str] | None = None,
    *,
    source: str,
    revision: str | None,
    max_rows: int,
    named: bool,
) -> Iterator[Example]:
    """The examples of templates, one template after the other; `named` puts the configuration before their ids."""
    for template in templates:
        rows = capped_rows(template, max_rows=max_rows)
        for example in read_p3_rows(template.name, source=source, revision=revision, rows=rows, notes=notes):
            yield replace(example, id=f"{template.name}/{example.id}") if named else example


def read_p3_rows(
    config: str, *, source: str, revision: str | None = None, rows: int, notes: Counter[str] | None = None
) -> Iterator[Example]:
    """Read the first training rows of a configuration of P3, in constant memory.

    Args:
        config: name of the configuration.
        source: hub id, or a folder with `<config>/train-00000-of-00002.parquet`, ... or `<config>/train/0000.parquet`, ...
        revision: commit, tag or branch on the hub.
        rows: how many to read; those without an input or a target are passed over, and count.
        notes: to which such rows are added.

    Yields:
        Examples with the row's number as id. They have answer choices if the configuration has them and the target is one.

    Raises:
        DataError: naming what is missing or cannot be read, and where.
    """
    folder = Path(source)
    batches = _local_batches(folder / config) if folder.is_dir() else _hub_batches(source, config, revision)
    for number, record in enumerate(islice(_records(batches, config), rows)):
        text, target = (str(record[column] or "").strip() for column in TEXT)
        choices = tuple(str(choice).strip() for choice in record.get(CHOICES) or ())
        if text and target:
            yield Example(str(number), text, (target,), choices if target in choices else ())
        elif notes is not None:
            notes[BLANK] += 1


def _records(batches: Iterable[pa.Table | pa.RecordBatch], config: str) -> Iterator[dict[str, Any]]:
    for batch in batches:
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(f"P3's configuration {config}: holds text that is not UTF-8: {error}; download it again") from None
        yield from records


def _local_batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """Batches of the shards of a configuration; a shard is opened when the ones before it are read."""
    shards = _shards(folder)
    if not shards:
        raise DataError(f"{folder}: no train-00000-of-*.parquet and no train/*.parquet; download this configuration of P3")
    for shard in shards:
        if shard.exists():
            require_file(shard)
        try:
            with pq.ParquetFile(shard, pre_buffer=False, buffer_size=BUFFER) as file:  # else it is all in memory by and by
                columns = _columns(file.schema_arrow.names, str(shard))
                yield from file.iter_batches(batch_size=BATCH, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{shard}: cannot be read: {one_line(error)}; download it again") from None


def _shards(folder: Path) -> list[Path]:
    """The files of a configuration's training split, with those that their names promise, whether they are there or not."""
    for path in sorted(folder.glob("train-*.parquet")):
        if match := SHARD.fullmatch(path.name):
            total = int(match[1])
            return [folder / f"train-{number:05d}-of-{total:05d}.parquet" for number in range(total)]
    return visible(sorted(folder.glob("train/*.parquet")))


def _columns(names: Iterable[str], where: str) -> list[str]:
    """The columns to read, of those that there are."""
    known = list(names)
    if missing := [column for column in TEXT if column not in known]:
        raise DataError(f"{where}: no column {missing[0]!r} (it has {', '.join(known)}); this is not P3's form")
    return [*TEXT, *([CHOICES] if CHOICES in known else [])]


def _hub_batches(source: str, config: str, revision: str | None) -> Iterator[pa.Table]:
    """Batches of a configuration on the hub. It is opened twice: for the names of its columns, and for the few wanted."""
    from datasets import load_dataset

    where = f"{source}, configuration {config}"
    with hub_errors(where, "check its name and revision and the network, or name a folder that holds it", opens=source):
        opened = partial(load_dataset, source, config, split="train", streaming=True, revision=revision)
        columns = _columns(opened().column_names or [], where)
        yield from opened(columns=columns, batch_size=BATCH).with_format("arrow").iter(batch_size=BATCH)
