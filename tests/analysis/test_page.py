"""A page is drawn once, and looks as if it had been drawn twice."""

from __future__ import annotations

import io

import matplotlib as mpl
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from mhrctl.analysis.page import Page


def written(figure: Figure, form: str) -> bytes:
    axes = figure.add_axes((0.2, 0.1, 0.5, 0.8))
    axes.plot([1, 2, 1000], [3, 1, 2])
    axes.set_title("a title", loc="left", y=1)
    axes.set_ylabel("a label")
    stream = io.BytesIO()
    if isinstance(figure, Page):
        figure.is_laid_out = False
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(stream, format=form, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["svg", "png"])
def test_what_is_written_is_the_same(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.hashsalt", "one")
    drawn: list[int] = []
    draw = Figure.draw

    def counted(self: Figure, renderer: RendererBase) -> None:
        drawn.append(1)
        draw(self, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    expected = written(Figure(), form)
    assert len(drawn) == 2
    assert written(Page(), form) == expected
    assert len(drawn) == 3
