"""A figure of the page: a picture for each panel that is worth axes, and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.page.pictures import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes) -> None:
    axes.plot([1, 2], [3, 4])


def test_each_panel_is_a_picture_and_what_is_missing_is_text() -> None:
    panels = [
        Panel("one", 2, draw, notes=["A note."], missing=["No cells yet."]),
        Panel("too little", 1, draw, instead=["One method alone."]),
        Panel("two", 2, draw, notes=["A note."]),
    ]
    shown = pictures(Plan("a figure", [panels[:2], panels[2:]], ["No scores."]), "figure9")
    assert shown.title == "a figure"
    assert ["one" in shown.panels[0], "two" in shown.panels[1], len(shown.panels)] == [True, True, 2]
    assert 'id="figure9-1-' in shown.panels[0]
    assert 'id="figure9-2-' in shown.panels[1]
    assert list(shown.notes) == ["A note.", "No scores.", "No cells yet.", "One method alone."]
    assert not any("No cells yet." in panel for panel in shown.panels)


def test_a_figure_without_panels_has_sentences_alone() -> None:
    shown = pictures(Plan("a figure", [], ["No scores."]), "figure9")
    assert (list(shown.panels), list(shown.notes)) == ([], ["No scores."])
