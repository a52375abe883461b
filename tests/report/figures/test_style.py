"""How figures look."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.report.figures.style import LOOKS, NARROW, new_figure, scale_parameters, shades, short
from tests.report.figures.made import cells, figure_of, texts
from tests.report.made import write_cells


def test_every_method_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == {BACKBONE, *METHODS}
    assert len(set(LOOKS.values())) == len(LOOKS)


@pytest.mark.parametrize(("count", "text"), [(0.5, "0.5"), (20, "20"), (1000, "1K"), (2e7, "20M"), (3e9, "3B")])
def test_short(count: float, text: str) -> None:
    assert short(count) == text


def test_shades_go_from_a_pale_one_to_the_colour() -> None:
    first, second, last = shades("#009e73", 3)
    assert (last, shades("#009e73", 1)) == ("#009e73", ["#009e73"])
    assert first > second > last  # nearer to white


def test_counts_that_are_all_but_equal_look_so() -> None:
    _, axes = new_figure(4, 4, "A", "title")
    axes["A"].plot([17_700_000, 17_720_000], [1, 2])
    scale_parameters(axes["A"], "parameters")
    low, high = axes["A"].get_xlim()
    assert high / low == pytest.approx(NARROW)
    assert (low * high) ** 0.5 == pytest.approx(17_710_000, rel=1e-3)


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    drawing = figure_of(2, write_cells(tmp_path, cells(backbone="a$_b$<c>&")))
    assert "a$_b$<c>&" in texts(drawing)
    drawing.rendered("png")
