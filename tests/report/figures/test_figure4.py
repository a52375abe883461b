"""Figure 4: the size of a routing."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from matplotlib.text import Text

from mhrctl.report.figures.sizes import APART, KEPT, ON_ALL
from mhrctl.report.figures.style import Drawing
from tests.report.figures.made import ROUTING, SKILLS, TASKS, cells, figure_of, points, routed, texts
from tests.report.made import write_cells


def test_figure4_shows_heads_skills_granularity_and_the_papers(metrics: Path) -> None:
    drawing = figure_of(4, metrics)
    words = texts(drawing)
    for part in (
        "h1",
        "h8",
        "one routing a layer one routing a block",
        "the paper: T0, T5-XL-LM",
        "from the authors' notebook",
    ):
        assert part in words
    assert drawing.missing == ("No cells of more skills yet: add a variant with pretrain.skills to poly_z.",)


def test_figure4_has_several_blocks_by_their_variant(tmp_path: Path) -> None:
    of_4_blocks = {
        f"mhr_z-h8-blocks4-s{seed}": routed("mhr_z", 8, seed, 59, routing=20, variant="blocks4", granularity="block")
        for seed in (0, 1)
    }
    drawing = figure_of(4, write_cells(tmp_path, cells() | of_4_blocks))
    assert "one routing a blocks4" in texts(drawing)


def test_figure4_shows_the_skills_kept_and_the_routing_beside_them(metrics: Path) -> None:
    drawing = figure_of(4, metrics)
    assert {KEPT, "routing of training tasks"} <= _labels(drawing)
    ends = [[x for x, _ in points(line)] for axes in drawing.figure.axes for line in axes.lines if line.get_marker() == "|"]
    assert [SKILLS, SKILLS, SKILLS + TASKS * 8 * ROUTING] in ends


def test_figure4_sets_equal_scores_apart_and_says_so(tmp_path: Path) -> None:
    by_name = {f"mhr_z-h{heads}-s0": routed("mhr_z", heads, 0, 60, routing=100 * heads) for heads in (8, 32, 64)}
    by_name |= {f"{method}-s0": routed(method, 1, 0, 60) for method in ("poly", "poly_z")}
    by_name["poly_z-k16-s0"] = routed("poly_z", 1, 0, 60, skills=32_000, routing=200, variant="k16") | {"skills": 16}
    drawing = figure_of(4, write_cells(tmp_path / "equal", by_name))
    assert APART in " ".join(texts(drawing).split())
    drawing.figure.draw_without_rendering()
    for axes in drawing.figure.axes[:2]:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to their points
        assert {text.get_text() for text in axes.texts} == {"h1", "h8", "h32", "h64", "16 skills"}
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        assert all(axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1 for box in boxes)
    heights = [points(line)[-1][1] for line in drawing.figure.axes[1].lines if line.get_marker() == "|"]
    assert len(set(heights)) == len(heights) == 5


def test_figure4_has_no_axes_for_a_single_point(tmp_path: Path) -> None:
    alone = {name: cell for name, cell in cells().items() if name in ("mhr-h8-s0", "mhr_z-h8-s0")}
    drawing = figure_of(4, write_cells(tmp_path, alone))
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["the paper: T0, T5-XL-LM"]
    for sentence in (
        "No cells of more heads yet: run poly_z, and mhr_z with several heads.",
        "No cells of coarser routing yet: add a variant with pretrain.granularity to mhr_z.",
    ):
        assert sentence in drawing.missing
        assert sentence in texts(drawing)


def test_figure4_draws_no_line_through_two_points(tmp_path: Path) -> None:
    def lines(name: str, heads: int) -> list[str]:
        extra = {f"mhr_z-h{count}-s0": routed("mhr_z", count, 0, 60, routing=100 * count) for count in (16, 32, 64)[:heads]}
        axes = figure_of(4, write_cells(tmp_path / name, cells() | extra)).figure.axes[0]
        return [str(line.get_linestyle()) for line in axes.lines if len(points(line)) > 2]

    assert lines("two", 0) == []
    assert lines("three", 1) == ["-"]


def test_figure4_shows_all_that_is_trained_where_the_skills_cannot_be_told(tmp_path: Path) -> None:
    alone = {name: cell for name, cell in cells().items() if cell["method"] not in ("poly", "mhr")}
    labels = _labels(figure_of(4, write_cells(tmp_path, alone)))
    assert ON_ALL in labels
    assert "routing of training tasks" not in labels


def _labels(drawing: Drawing) -> set[str]:
    axes, legends = drawing.figure.axes, drawing.figure.legends
    return {of.get_xlabel() for of in axes} | {text.get_text() for legend in legends for text in legend.get_texts()}
