"""Tasks too large to hold are tokenised a row group at a time into a file for each, which a killed run need not make again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mhrctl.artifacts.writing import replacing
from mhrctl.data.rows import SCHEMA, Encoder
from mhrctl.suites.task import Example

ROW_GROUP = 10_000
"""Rows that are held at a time."""
HELD_OUT = 5
"""A task gives validation one row in this many at most."""
T = TypeVar("T")


def write_shard(examples: Iterator[Example], encoder: Encoder, shard: Path, advance: Callable[[int], None]) -> None:
    """Write all examples of a task, with what was cut and counted as the file's metadata; the file is there when it is whole.

    Args:
        examples: of the task.
        encoder: makes rows of them.
        shard: the Parquet file.
        advance: is called with the rows written.
    """
    with replacing(shard) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        for chunk in chunks(examples, ROW_GROUP):
            writer.write_table(encoder.table([("train", example, 0) for example in chunk], SCHEMA))
            advance(len(chunk))
        writer.add_key_value_metadata({f"cut_{what}": str(count) for what, count in encoder.cut.items()})
        writer.add_key_value_metadata({"unknown": json.dumps(encoder.unsayable.counts), "notes": json.dumps(encoder.notes)})


def read_cuts(shard: Path) -> dict[str, int]:
    """Return how many inputs and targets were cut when a shard was written."""
    metadata = pq.ParquetFile(shard).metadata.metadata or {}
    return {what: int(metadata.get(f"cut_{what}".encode(), b"0")) for what in ("input", "target")}


def read_counts(shard: Path, what: Literal["unknown", "notes"]) -> dict[str, int]:
    """Return what the tokenizer could not say when a shard was written (`unknown`), or what its stream left out (`notes`)."""
    metadata = pq.ParquetFile(shard).metadata.metadata or {}
    counts: dict[str, int] = json.loads(metadata[what.encode()])
    return counts


def copy_shard(shard: Path, writer: pq.ParquetWriter, *, train: int | None, validation: int, seed: str) -> dict[str, int]:
    """Copy a shard's rows, each put into a split at random.

    Args:
        shard: written by `write_shard`.
        writer: of the examples file.
        train: rows to keep for training, drawn at random; None keeps all.
        validation: rows for validation at most, drawn at random; a fifth of a small task.
        seed: of both draws.

    Returns:
        {split: rows}, and the rows of neither as `unused`.
    """
    source = pq.ParquetFile(shard, memory_map=True)
    total = source.metadata.num_rows
    places = list(range(total))
    random.Random(seed).shuffle(places)
    held_out = min(validation, total // HELD_OUT)
    kept = total - held_out if train is None else min(train, total - held_out)
    split = np.zeros(total, np.int8)  # 0 is of neither
    split[places[:held_out]] = 2
    split[places[held_out : held_out + kept]] = 1
    names = pa.array(["unused", "train", "validation"])
    start = 0
    for group in range(source.num_row_groups):
        table = source.read_row_group(group)
        labels = split[start : start + len(table)]
        start += len(table)
        labelled = table.set_column(SCHEMA.get_field_index("split"), "split", names.take(pa.array(labels)))
        writer.write_table(labelled.filter(pc.not_equal(pa.array(labels), 0)).cast(SCHEMA))
    return {"train": kept, "validation": held_out, "unused": total - held_out - kept}


def chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Cut items into lists of at most `size`."""
    while chunk := list(islice(items, size)):
        yield chunk
