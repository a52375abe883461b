"""Rows a second of the prepare stage, on few rows."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from benchmarks import preparing
from benchmarks.preparing import Plan, write_rows


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    measured = preparing.measure(Plan(tasks=3, rows=60, mapped=20))
    assert [row.gate for row in measured.rows] == [None] * 3  # which is for many rows
    assert all(0 < row.value.median < math.inf for row in measured.rows)
    assert measured.notes[0].startswith("180 made rows of 3 tasks")
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    monkeypatch.setattr(preparing, "MANY", 180)
    assert [row.gate for row in preparing.measure(Plan(3, 60, 20)).rows] == [5000, 5000, None]


def test_rows_are_the_same_at_every_call(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_rows(tmp_path / folder, Plan(11, 5, 1))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.jsonl"))
    assert [file.parent.name for file in files].count("test") == 2
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    rows = [json.loads(line) for line in (tmp_path / "one" / files[0]).read_text().splitlines()]
    assert len({row["input"] for row in rows}) == len(rows) == 5


def test_a_row_that_is_left_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preparing._prepare
    monkeypatch.setattr(preparing, "_prepare", lambda root, out, tokenizer, rows: whole(root, out, tokenizer, rows // 2))
    with pytest.raises(RuntimeError, match="of 180"):
        preparing.measure(Plan(3, 60, 20))
