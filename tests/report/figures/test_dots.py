"""The results as dots."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from mhrctl.report.differences import compare
from mhrctl.report.figures.dots import plan_dots
from mhrctl.report.results import NO_SCORES, read_results
from tests.report.figures.made import points, texts
from tests.report.made import both, made_cell, write_cells


def test_a_row_for_each_method_and_its_difference(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    cells = {"backbone": made_cell("backbone", None, None, zero_shot=12.5)}
    for method, heads in (("lora", 1), ("poly", 1), ("mhr", 8)):
        for seed in range(3):
            of_tasks = {task: float(score) for task, score in zip("abcdefgh", drawn.normal(60, 5, 8), strict=True)}
            cells[f"{method}{'-h8' * (heads > 1)}-s{seed}"] = made_cell(method, heads, seed, of_tasks)
    results = read_results(write_cells(tmp_path, cells))
    drawing = plan_dots(results).drawing()
    scores, differences = drawing.figure.axes
    assert [text.get_text() for text in scores.get_yticklabels()] == ["lora", "poly", "mhr-h8"]
    assert [text.get_text() for text in differences.get_yticklabels()] == ["lora", "poly", "mhr-h8"]
    means = [points(line)[0] for line in scores.lines if line.get_marker() == "o"]
    assert means == [(fmean(group.values("adapted")), place) for place, group in enumerate(results.adapted)]
    lora, _, mhr = results.adapted
    expected = compare(mhr, lora)
    assert expected is not None
    at = [points(line)[0] for line in differences.lines if line.get_marker() == "o"]
    assert at[0] == (0, 0)
    assert at[2] == (expected.interval.mean, 2)
    ends = [np.asarray(path.vertices) for bars in differences.collections for path in bars.get_paths()]
    (bar,) = [end for end in ends if end[0][1] == 2]
    assert sorted(bar[:, 0]) == pytest.approx([expected.interval.low, expected.interval.high])
    words = texts(drawing)
    assert "bare backbone: 12.5" in words
    assert "95% intervals" in words


def test_without_a_baseline_there_are_scores_alone(tmp_path: Path) -> None:
    cells = {f"{method}-s0": made_cell(method, 1, 0, both(60)) for method in ("poly", "ia3")}
    (axes,) = plan_dots(read_results(write_cells(tmp_path, cells))).drawing().figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ia3", "poly"]


def test_without_scores_it_says_so(tmp_path: Path) -> None:
    assert plan_dots(read_results(tmp_path)).all_missing == (NO_SCORES,)
