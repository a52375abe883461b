"""Scores as markers, and what they vary by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from mhrctl.report.figures.marks import OF_PAPER, mark_ours, mark_paper, method_handles, ours_are
from mhrctl.report.printed import printed_table
from mhrctl.report.results import Results, read_results
from tests.report.figures.made import blank, points
from tests.report.made import both, made_cell, write_cells


def of_seeds(folder: Path, *scores: float, suite: str = "compositional") -> Results:
    cells = {f"lora-s{seed}": made_cell("lora", 1, seed, both(score), suite=suite) for seed, score in enumerate(scores)}
    return read_results(write_cells(folder, cells))


def bars(axes: Axes) -> list[float]:
    """Lengths of the error bars."""
    segments = [np.asarray(path.vertices) for lines in axes.collections for path in lines.get_paths()]
    return [float(np.ptp(segment, axis=0).max()) for segment in segments]


@pytest.mark.parametrize(
    ("scores", "dots", "long"),
    [([60.0], [], []), ([60.0, 64.0], [60.0, 64.0], []), ([60.0, 62.0, 64.0], [], [4.0])],
    ids=["one seed", "two seeds", "three seeds"],
)
def test_few_seeds_are_dots_and_enough_have_a_bar(
    tmp_path: Path, scores: list[float], dots: list[float], long: list[float]
) -> None:
    (group,) = of_seeds(tmp_path, *scores).adapted
    by_row, by_column = blank(), blank()
    mark_ours(by_row, group, y=3)
    mark_ours(by_column, group, x=3)
    mean = sum(scores) / len(scores)
    for axes, along in ((by_row, 0), (by_column, 1)):
        drawn = [[at[along] for at in points(line)] for line in axes.lines if line.get_marker() == "o"]
        assert drawn == [[mean], *([dots] if dots else [])]
        assert {at[1 - along] for line in axes.lines if line.get_marker() == "o" for at in points(line)} == {3}
        assert bars(axes) == pytest.approx(long)


def test_what_is_drawn_is_said(tmp_path: Path) -> None:
    def said(name: str, *scores: float, suite: str = "compositional") -> str:
        results = of_seeds(tmp_path / name, *scores, suite=suite)
        return " ".join(ours_are(results, results.adapted))

    assert said("one", 60) == "Filled: ours, mean over seeds of the mean over tasks; a single seed."
    assert "small dots: the two seeds" in said("two", 60, 61)
    assert said("three", 60, 61, 62) == (
        "Filled: ours, mean over seeds of the mean over tasks; bars: standard deviation over 3 seeds."
    )
    of_t0 = said("t0", 60, 61, 62, suite="t0")
    assert "each task's median over seeds; bars: mean over tasks of the standard deviation over 3 seeds" in of_t0
    assert ours_are(Results({}, ()), []) == []


def test_methods_of_other_numbers_of_seeds_are_told(tmp_path: Path) -> None:
    cells = {f"lora-s{seed}": made_cell("lora", 1, seed, both(60 + seed)) for seed in range(5)}
    cells |= {f"poly-s{seed}": made_cell("poly", 1, seed, both(60 + seed)) for seed in range(3)}
    cells |= {"ia3-s0": made_cell("ia3", 1, 0, both(60))}
    results = read_results(write_cells(tmp_path, cells))
    (said,) = ours_are(results, results.adapted)
    assert "bars: standard deviation over 3 to 5 seeds; with neither: a single seed." in said


def test_the_papers_are_hollow_with_their_deviation() -> None:
    row = printed_table("figure2_t5xl").rows["lora"]
    axes = blank()
    mark_paper(axes, row, y=0)
    (marker,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert marker.get_markerfacecolor() != marker.get_color()
    assert points(marker) == [(row.score.mean, 0)]
    assert bars(axes) == pytest.approx([2 * (row.score.deviation or 0)])
    assert "standard deviation" in OF_PAPER


def test_a_legend_of_methods_has_each_once_in_the_order_of_the_table() -> None:
    handles = method_handles(["mhr", "lora", "mhr"])
    assert [handle.get_label() for handle in handles] == ["lora", "mhr"]
