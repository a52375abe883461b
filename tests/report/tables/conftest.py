"""What all tables are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.made import write_cells
from tests.report.tables.made import CELLS


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with the cells above."""
    return write_cells(tmp_path / "metrics", CELLS)
