"""How figures look."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.report.figures import draw_figure
from mhrctl.report.figures.style import LOOKS, short
from tests.report.figures.made import cells, texts
from tests.report.made import write_cells


def test_every_method_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == {BACKBONE, *METHODS}
    assert len(set(LOOKS.values())) == len(LOOKS)


@pytest.mark.parametrize(("count", "text"), [(0.5, "0.5"), (20, "20"), (1000, "1K"), (2e7, "20M"), (3e9, "3B")])
def test_short(count: float, text: str) -> None:
    assert short(count) == text


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    drawing = draw_figure(2, write_cells(tmp_path, cells(backbone="a$_b$<c>&")))
    assert "a$_b$<c>&" in texts(drawing)
    drawing.rendered("png")
