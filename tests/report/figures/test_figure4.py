"""Figure 4: the size of a routing."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures import draw_figure
from mhrctl.report.figures.sizes import KEPT, ON_ALL
from mhrctl.report.figures.style import Drawing
from tests.report.figures.made import ROUTING, SKILLS, TASKS, cells, points, routed, texts
from tests.report.made import write_cells


def test_figure4_shows_heads_skills_granularity_and_the_papers(metrics: Path) -> None:
    drawing = draw_figure(4, metrics)
    words = texts(drawing)
    for part in (
        "h1",
        "h8",
        "shared by layer block",
        "the paper: T0, T5-XL-LM",
        "Dots: the authors' notebook, not proof-read.",
    ):
        assert part in words
    assert drawing.missing == ("No cells of more skills yet: add a variant with pretrain.skills to poly_z.",)


def test_figure4_has_several_blocks_by_their_variant(tmp_path: Path) -> None:
    of_4_blocks = {
        f"mhr_z-h8-blocks4-s{seed}": routed("mhr_z", 8, seed, 59, routing=20, variant="blocks4", granularity="block")
        for seed in (0, 1)
    }
    drawing = draw_figure(4, write_cells(tmp_path, cells() | of_4_blocks))
    assert "shared by layer block blocks4" in texts(drawing)


def test_figure4_shows_the_skills_kept_and_the_routing_beside_them(metrics: Path) -> None:
    drawing = draw_figure(4, metrics)
    assert {KEPT, "routing of training tasks"} <= _labels(drawing)
    ends = [[x for x, _ in points(line)] for axes in drawing.figure.axes for line in axes.lines if line.get_marker() == "|"]
    assert [SKILLS, SKILLS + TASKS * 8 * ROUTING] in ends


def test_figure4_shows_all_that_is_trained_where_the_skills_cannot_be_told(tmp_path: Path) -> None:
    alone = {name: cell for name, cell in cells().items() if cell["method"] not in ("poly", "mhr")}
    labels = _labels(draw_figure(4, write_cells(tmp_path, alone)))
    assert ON_ALL in labels
    assert "routing of training tasks" not in labels


def _labels(drawing: Drawing) -> set[str]:
    axes, legends = drawing.figure.axes, drawing.figure.legends
    return {of.get_xlabel() for of in axes} | {text.get_text() for legend in legends for text in legend.get_texts()}
