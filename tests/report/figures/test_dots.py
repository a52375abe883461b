"""The results as dots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mhrctl.report.differences import compare
from mhrctl.report.figures.dots import plan_dots
from mhrctl.report.results import NO_SCORES, read_results
from tests.report.figures.made import points, texts
from tests.report.made import both, made_cell, write_cells


def test_a_row_for_each_method_and_its_difference(metrics: Path) -> None:
    results = read_results(metrics)
    drawing = plan_dots(results).drawing()
    scores, differences = drawing.figure.axes
    labels = [group.label for group in results.adapted]
    for axes in (scores, differences):
        assert [text.get_text() for text in axes.get_yticklabels()] == labels
    drawn = {round(at[1]): at[0] for line in scores.lines for at in points(line) if len(points(line)) == 1}
    assert drawn == {place: group.values("adapted")[0] + 0.5 for place, group in enumerate(results.adapted)}
    place = labels.index("mhr h8")
    expected = compare(results.adapted[place], results.adapted[labels.index("lora")])
    assert expected is not None
    at = [points(line)[0] for line in differences.lines if len(points(line)) == 1 and points(line)[0][1] == place]
    assert at[0][0] == pytest.approx(expected.interval.mean)
    ends = [np.asarray(path.vertices) for bars in differences.collections for path in bars.get_paths()]
    (bar,) = [end for end in ends if end[0][1] == place]
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
