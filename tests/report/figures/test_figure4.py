"""Figure 4: the size of a routing."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures import draw_figure
from tests.report.figures.made import texts


def test_figure4_shows_heads_skills_granularity_and_the_papers(metrics: Path) -> None:
    drawing = draw_figure(4, metrics)
    words = texts(drawing)
    for part in ("h1", "h8", "h8 layer", "h8 block", "the paper: T0, T5-XL-LM", "Dots: the authors' notebook, not proof-read."):
        assert part in words
    assert drawing.missing == ("No cells of more skills yet: add a variant with pretrain.skills to poly_z.",)
