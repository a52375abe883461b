"""Panels as one picture and as pictures of their own."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from mhrctl.config.colours import INK
from mhrctl.report.figures.marks import handle
from mhrctl.report.figures.plan import ALONE, WIDTHS, Panel, Plan
from tests.report.figures.made import texts


def panel(title: str, points: int = 2, **more: object) -> Panel:
    def draw(axes: Axes) -> None:
        axes.plot(range(points), range(points), "o")

    return Panel(title, points, draw, **more)  # type: ignore[arg-type]


@pytest.fixture
def plan() -> Plan:
    entry = handle("an entry", INK, "o")
    first = [panel("one", handles=[entry], notes=["How to read it."]), panel("two", handles=[entry], missing=["No sky yet."])]
    return Plan("A figure", [first, [panel("three", 1, notes=["Of no picture."], missing=["No third yet."])]], ["All else."])


def test_a_picture_has_the_panels_worth_axes_and_every_sentence(plan: Plan) -> None:
    drawing = plan.drawing()
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["one", "two"]
    words = texts(drawing)
    for part in ("A figure", "How to read it.", "No sky yet.", "No third yet.", "All else."):
        assert part in words
    assert "Of no picture." not in words
    assert words.count("an entry") == 1
    assert drawing.missing == ("All else.", "No sky yet.", "No third yet.")
    assert drawing.notes == ("How to read it.",)


def test_apart_each_panel_has_its_legend_and_leaves_sentences_to_the_page(plan: Plan) -> None:
    one, two = plan.apart()
    assert [one.title, two.title] == ["one", "two"]
    assert [drawing.figure.get_figwidth() for drawing in (one, two)] == [ALONE] * 2
    for drawing in (one, two):
        words = texts(drawing)
        assert words.count("an entry") == 1
        assert "yet" not in words
        assert "read" not in words
    assert (one.notes, two.missing) == (("How to read it.",), ("No sky yet.",))


def test_nothing_overlaps_the_axes(plan: Plan) -> None:
    figure = plan.drawing().figure
    figure.draw_without_rendering()
    bottom = min(axes.get_tightbbox().y0 for axes in figure.axes)
    top = max(axes.get_tightbbox().y1 for axes in figure.axes)
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 <= bottom
    title, *sentences = figure.texts
    assert title.get_window_extent().y0 >= top
    assert all(text.get_window_extent().y1 <= legend.get_window_extent().y0 for text in sentences)


def test_a_figure_is_as_wide_as_its_panels_need() -> None:
    for count, width in ((1, WIDTHS[0]), (2, WIDTHS[1]), (3, WIDTHS[2]), (4, WIDTHS[2])):
        rows = [[panel("first")], [panel(f"{place}") for place in range(count)]]
        assert Plan("x", rows).drawing().figure.get_figwidth() == width


def test_a_figure_without_panels_is_its_sentences() -> None:
    drawing = Plan("x", [], ["Nothing to show yet."]).drawing()
    assert drawing.figure.axes == []
    assert "Nothing to show yet." in texts(drawing)
    assert Plan("x", [], ["Nothing to show yet."]).apart() == []
