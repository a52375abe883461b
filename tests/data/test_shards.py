"""Shards of streamed tasks: whole or not there, a row group at a time, split at random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mhrctl.data.rows import SCHEMA, Encoder
from mhrctl.data.shards import copy_shard, read_cuts, write_shard
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.suites.task import Example


def stream(rows: int, killed_at: int | None = None) -> Iterator[Example]:
    for number in range(rows):
        if number == killed_at:
            raise KeyboardInterrupt
        yield Example(str(number), "one two three" if number % 4 else "one", ("two",))


def encoder() -> Encoder:
    return Encoder("count", str, train_tokenizer("word", ["one two three"], vocab_size=100), 3, 3)


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mhrctl.data.shards.ROW_GROUP", 8)
    write_shard(stream(50), encoder(), tmp_path / "shard.parquet", lambda _rows: None)
    return tmp_path / "shard.parquet"


def copied(shard: Path, **options: int | None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    target = shard.with_name("all.parquet")
    settings: dict[str, int | None] = {"train": None, "validation": 5} | options
    with pq.ParquetWriter(target, SCHEMA) as writer:
        counts = copy_shard(
            shard, writer, train=settings["train"], validation=settings["validation"] or 0, seed=f"{options.get('seed', 1)}"
        )
    return counts, [(row["id"], row["split"]) for row in pq.read_table(target).to_pylist()]


def test_a_shard_is_written_in_row_groups_with_its_cuts(shard: Path) -> None:
    file = pq.ParquetFile(shard)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [8] * 6 + [2]
    assert read_cuts(shard) == {"input": 50 - 13, "target": 0}
    assert [row["id"] for row in pq.read_table(shard).to_pylist()] == [str(number) for number in range(50)]


def test_a_killed_writer_leaves_no_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_shard(stream(50, killed_at=30), encoder(), tmp_path / "shard.parquet", lambda _rows: None)
    assert not (tmp_path / "shard.parquet").exists()


def test_validation_is_drawn_at_random_and_the_rest_trains(shard: Path) -> None:
    counts, rows = copied(shard)
    assert counts == {"train": 45, "validation": 5, "unused": 0}
    assert [name for name, _ in rows] == [str(number) for number in range(50)]  # in their order
    held_out = [name for name, split in rows if split == "validation"]
    assert len(held_out) == 5
    assert held_out != [str(number) for number in range(5)]
    assert copied(shard)[1] == rows
    assert copied(shard, seed=2)[1] != rows


def test_as_many_rows_as_asked_train_and_a_small_task_keeps_four_fifths(shard: Path) -> None:
    counts, rows = copied(shard, train=20)
    assert counts == {"train": 20, "validation": 5, "unused": 25}
    assert len(rows) == 25
    assert copied(shard, validation=100)[0] == {"train": 40, "validation": 10, "unused": 0}


def test_one_row_group_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.data.shards.ROW_GROUP", 8)
    read, written = 0, 0

    def counted() -> Iterator[Example]:
        nonlocal read
        for example in stream(64):
            read += 1
            assert read - written <= 8
            yield example

    def advance(rows: int) -> None:
        nonlocal written
        written += rows

    write_shard(counted(), encoder(), tmp_path / "shard.parquet", advance)
    assert (read, written) == (64, 64)
