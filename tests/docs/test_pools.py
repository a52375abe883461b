"""docs/pools.md has the tables that the committed scores of the studies of pools make."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("study", ["pool", "pool-superni"])
def test_the_table_is_the_report_s(study: str) -> None:
    report = (ROOT / "pipelines" / study / "data/report/pool.md").read_text(encoding="utf-8")
    table = [line for line in report.splitlines() if line.startswith("|")]
    assert len(table) > 2
    assert "\n".join(table) in (ROOT / "docs/pools.md").read_text(encoding="utf-8")
