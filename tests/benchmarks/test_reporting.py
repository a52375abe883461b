"""The report of a made project."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import reporting
from benchmarks.reporting import GROUPS, Plan, run, write_project
from mhrctl.report.html import html_report


def test_a_made_project_has_all_that_a_page_shows(tmp_path: Path) -> None:
    assert write_project(tmp_path, 2) == 2 * len(GROUPS)
    page = html_report(tmp_path / "data", [])
    for text in ("mhr-h8", "random_mu", "Routing", "Wrong answers of", "an answer", "test3_made"):
        assert text in page
    assert "Not shown" not in page
    assert page.count("<svg") > 8


@pytest.mark.slow
def test_seconds() -> None:
    measured = reporting.measure(Plan(1, 2))
    assert [row.gate for row in measured.rows] == [None, None]  # the gate is for more cells
    assert all(0 < row.value.low <= row.value.median <= row.value.high < 100 for row in measured.rows)


@pytest.mark.slow
def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mhrctl report failed"):
        run(tmp_path)
