"""What all figures are drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.figures.made import cells, write_logs
from tests.report.made import write_cells


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with all that Figures 3 and 4 can show."""
    return write_logs(write_cells(tmp_path, cells()))
