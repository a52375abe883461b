"""docs/pools.md has the tables that the committed scores of the studies of pools make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("study", ["pool", "pool-superni"])
def test_the_table_is_the_report_s(study: str, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    project = ROOT / "pipelines" / study
    assert run("report", "--table", "pool", "--format", "markdown", "-C", project) == 0
    printed = capfd.readouterr().out
    assert printed.strip() == (project / "data/report/pool.md").read_text(encoding="utf-8").strip()
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) > 2
    assert "\n".join(table) in (ROOT / "docs/pools.md").read_text(encoding="utf-8")
