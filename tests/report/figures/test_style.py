"""How figures look."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from mhrctl.config.colours import GREEN, INK, PAPER, PURPLE
from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.report.figures import FIGURES
from mhrctl.report.figures.sizes import GREY_LINE
from mhrctl.report.figures.style import LOOKS, NARROW, scale_parameters, shades, short
from tests.report.figures.made import blank, cells, figure_of, texts
from tests.report.figures.sight import FAR, SIMULATIONS, distance
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
    axes = blank()
    axes.plot([17_700_000, 17_720_000], [1, 2])
    scale_parameters(axes, "parameters")
    low, high = axes.get_xlim()
    assert high / low == pytest.approx(NARROW)
    assert (low * high) ** 0.5 == pytest.approx(17_710_000, rel=1e-3)


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    drawing = figure_of(2, write_cells(tmp_path, cells(backbone="a$_b$<c>&")))
    assert "a$_b$<c>&" in texts(drawing)
    drawing.rendered("png")


def test_ticks_of_counts_all_have_names() -> None:
    axes = blank()
    axes.plot([20_000, 3_000_000], [1, 2])
    scale_parameters(axes, "parameters")
    assert not axes.xaxis.get_minorticklocs().size
    assert all(label.get_text() for label in axes.get_xticklabels())


@pytest.mark.parametrize("number", FIGURES)
def test_an_svg_has_no_background_and_one_ink(metrics: Path, number: int) -> None:
    """What is behind it and the colour of its letters are the page's to choose."""
    svg = figure_of(number, metrics).rendered("svg").decode()
    background = re.search(r'<g id="patch_1">.*?</g>', svg, re.DOTALL)
    assert background is not None
    assert "fill: none" in background[0]
    used = {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", svg)}
    grey = {colour for colour in used if len({*re.findall("..", colour[1:])}) == 1}
    assert {INK, PAPER} <= grey <= {INK, PAPER, GREY_LINE}
    letters = re.findall(r"<text [^>]*>", svg)
    assert all(f"fill: {INK}" in element for element in letters)


def test_a_background_is_given_where_it_is_asked_for(metrics: Path) -> None:
    svg = figure_of(4, metrics).rendered("svg", behind="#ffffee").decode()
    assert "fill: #ffffee" in svg


@pytest.mark.parametrize("kind", SIMULATIONS)
def test_methods_with_one_marker_do_not_look_alike_to_the_colour_blind(kind: str) -> None:
    assert not [
        f"{one} and {other}: {far:.0f}"
        for one, other in combinations(LOOKS, 2)
        if LOOKS[one][1] == LOOKS[other][1] and (far := distance(LOOKS[one][0], LOOKS[other][0], kind)) < FAR
    ]


def test_the_simulation_sees_what_the_colour_blind_see() -> None:
    """A purple beside the green of mhr, which are one grey to many."""
    assert distance(GREEN, PURPLE, "none") > 4 * distance(GREEN, PURPLE, "deuteranopia")
