"""Examples in memory and mapped from disk, and the samples that are drawn from them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.data.examples import Examples
from mhrctl.data.rows import SCHEMA


def examples(folder: Path) -> Examples:
    rows = [
        {
            "task": task,
            "split": split,
            "id": f"{task}{number}",
            "prompt": "",
            "targets": ["a", "b"][: number + 1],
            "choices": [],
            "reference": number,
            "input_ids": [10 * number, 5, 1],
            "target_ids": [[7, 1], [8, 9, 1]][: number + 1],
            "input_tokens": 3,
            "target_tokens": 2 + number,
        }
        for task in ("x", "y")
        for number, split in enumerate(("train", "test"))
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "e.parquet")
    return Examples.read(folder / "e.parquet")


def test_samples_of_filtered_rows(tmp_path: Path) -> None:
    selected = examples(tmp_path).of(tasks=["y"], split="test")
    (scored,) = selected.scored()
    assert (scored.task, scored.input_ids.tolist(), scored.target_ids.tolist()) == (1, [10, 5, 1], [8, 9, 1])
    assert [sample.target_ids.tolist() for sample in selected.all_references()] == [[7, 1], [8, 9, 1]]
    assert [sample.task for sample in examples(tmp_path).take([3, 0]).scored()] == [1, 0]


def test_tokens_mapped_from_disk_are_those_in_memory(tmp_path: Path) -> None:
    held = examples(tmp_path)
    table = pq.read_table(tmp_path / "e.parquet")
    with pq.ParquetWriter(tmp_path / "groups.parquet", SCHEMA) as writer:
        for row in range(len(table)):
            writer.write_table(table.slice(row, 1))
    mapped = Examples.mapped(tmp_path / "groups.parquet", tmp_path / "cache" / "tokens.arrow")
    for selected in (mapped, mapped.of(tasks=["y"]), mapped.take([3, 0, 1])):
        same = held if selected is mapped else held.of(tasks=["y"]) if len(selected) == 2 else held.take([3, 0, 1])
        got, expected = selected.all_references(), same.all_references()
        assert len(got) == len(expected)
        for mine, other in zip(got, expected, strict=True):
            assert (mine.task, mine.input_ids.tolist(), mine.target_ids.tolist()) == (
                other.task,
                other.input_ids.tolist(),
                other.target_ids.tolist(),
            )
    (tmp_path / "groups.parquet").write_bytes(b"gone")  # what was mapped once is mapped again
    assert len(Examples.mapped(tmp_path / "groups.parquet", tmp_path / "cache" / "tokens.arrow")) == 4


def test_a_large_file_is_mapped_and_a_changed_one_mapped_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples(tmp_path)
    assert len(Examples.open(tmp_path / "e.parquet", tmp_path / "scratch")) == 4
    assert not (tmp_path / "scratch").exists()
    monkeypatch.setattr("mhrctl.data.examples.LARGE", 1)
    assert len(Examples.open(tmp_path / "e.parquet", tmp_path / "scratch")) == 4
    pq.write_table(pq.read_table(tmp_path / "e.parquet").slice(0, 3), tmp_path / "e.parquet")
    assert len(Examples.open(tmp_path / "e.parquet", tmp_path / "scratch")) == 3
    assert len(list((tmp_path / "scratch").glob("*.arrow"))) == 2


def test_references_are_counted_and_sliced(tmp_path: Path) -> None:
    references = examples(tmp_path).all_references()
    assert len(references) == 6
    assert [sample.task for sample in references[1:5]] == [0, 0, 1, 1]
    with pytest.raises(IndexError):
        references[6]


def test_a_mapped_file_that_is_cut_off_or_rotten_is_made_anew(tmp_path: Path) -> None:
    examples(tmp_path)
    cache = tmp_path / "scratch" / "tokens.arrow"
    expected = [sample.input_ids.tolist() for sample in Examples.mapped(tmp_path / "e.parquet", cache).scored()]
    whole = cache.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:], b""):
        cache.write_bytes(damaged)
        read = Examples.mapped(tmp_path / "e.parquet", cache)
        assert [sample.input_ids.tolist() for sample in read.scored()] == expected
        assert cache.read_bytes() == whole
