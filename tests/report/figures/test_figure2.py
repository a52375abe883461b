"""Figure 2: which panel shows what, and what it says is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.report.printed import T5_XL, printed_table
from mhrctl.suites.t0.held_out import T0_TEST_TASKS
from tests.report.figures.made import cells, figure_of, points, texts
from tests.report.made import made_cell, write_cells

T0_3B: dict[str, Any] = {
    "suite": "t0",
    "backbone": "bigscience/T0_3B",
    "metric": "accuracy",
    "frozen": {"source": "hub", "parameters": T5_XL, "fingerprint": "0"},
}


def test_figure2_sets_ours_apart_from_t0_and_names_every_method(metrics: Path) -> None:
    drawing = figure_of(2, metrics)
    words = texts(drawing)
    for part in (
        "ours: compositional, scratch-1.2M",
        "ROUGE-L (bare backbone, zero-shot: 12.5)",
        "T0, T5-XL-LM",
        "mhr_z-h8-block",
    ):
        assert part in words
    assert drawing.missing == ("No cells of T0 on T5-XL-LM yet.", "No cells of T0 on T0-3B yet.")


@pytest.mark.parametrize(
    ("backbone", "title", "lacking"),
    [
        (
            "google/t5-xl-lm-adapt",
            "T0, T5-XL-LM",
            "No cells of lora_big, ia3, adapter_soup, mhr-h64, mhr_z-h64 for T0 on T5-XL-LM yet.",
        ),
        ("bigscience/T0_3B", "T0, T0-3B", "No cells of tfew, adapter_soup, mhr_z-h64 for T0 on T0-3B yet."),
    ],
)
def test_figure2_draws_ours_on_t0_in_the_panel_of_the_backbone(tmp_path: Path, backbone: str, title: str, lacking: str) -> None:
    drawing = figure_of(2, write_cells(tmp_path, cells(suite="t0", backbone=backbone, metric="accuracy")))
    words = texts(drawing)
    assert title in words
    assert "ours:" not in words
    assert lacking in drawing.missing


def test_figure2_on_superni_has_the_papers_scores_of_superni(tmp_path: Path) -> None:
    drawing = figure_of(2, write_cells(tmp_path, cells(suite="superni", backbone="google/t5-xl-lm-adapt", layout="light")))
    assert "No cells of lora_big, mhr_z-h64 for superni, google/t5-xl-lm-adapt yet." in drawing.missing


@pytest.mark.parametrize("backbone", ["bigscience/T0", "google/t5-large-lm-adapt"])
def test_figure2_draws_ours_on_t0_with_another_backbone_apart(tmp_path: Path, backbone: str) -> None:
    drawing = figure_of(2, write_cells(tmp_path, cells(suite="t0", backbone=backbone, metric="accuracy")))
    assert f"ours: t0, {backbone}" in texts(drawing)
    assert {"No cells of T0 on T5-XL-LM yet.", "No cells of T0 on T0-3B yet."} <= set(drawing.missing)
    table3 = "No cells of tfew, mhr_z-h64 for t0, bigscience/T0 yet."
    assert (table3 in drawing.missing) is (backbone == "bigscience/T0")


def test_figure2_has_the_line_of_tfew_where_the_paper_has_it(tmp_path: Path, metrics: Path) -> None:
    score = printed_table("figure2_t03b").rows["tfew"].score.mean
    drawing = figure_of(2, metrics)
    assert f"T0-3B: {score}" in texts(drawing)
    (dashed,) = [line for axes in drawing.figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert {y for _, y in points(dashed)} == {score}
    on_t0_3b = figure_of(2, write_cells(tmp_path / "3b", {"lora-s0": _on_t0_3b("lora", 0, 60)}))
    assert f"T0-3B: {score}" not in texts(on_t0_3b)


def test_figure2_sets_light_cells_beside_the_papers_light_ones(tmp_path: Path) -> None:
    by_name = {"lora-s0": _on_t0_3b("lora", 0, 60), "lora_big-s0": _on_t0_3b("lora_big", 0, 61)}
    full = figure_of(2, write_cells(tmp_path, by_name))
    assert "No cells of tfew, adapter_soup, poly, poly_z, mhr-h8, mhr_z-h64 for T0 on T0-3B yet." in full.missing
    light = {"lora-light-s0": _on_t0_3b("lora", 0, 59, variant="light", layout="light")}
    both = figure_of(2, write_cells(tmp_path, by_name | light))
    (lacking,) = [sentence for sentence in both.missing if "T0-3B" in sentence]
    assert "lora (light)" not in lacking
    assert "lora_big (light)" in lacking
    assert "mhr_z-h32" in lacking
    light_lora, of_table6 = 59, 66.2
    drawn = [points(line) for line in both.figure.axes[0].lines]
    near = {line[0][0] for line in drawn if len(line) == 1 and 0.5 < line[0][1] < 1.5}
    assert {light_lora, of_table6} <= near


def test_figure2_draws_the_light_layout_smaller_and_says_so(tmp_path: Path) -> None:
    full = {"lora-s0": _on_t0_3b("lora", 0, 60)}
    light = {"lora-light-s0": _on_t0_3b("lora", 0, 59, variant="light", layout="light")}
    drawing = figure_of(2, write_cells(tmp_path, full | light))
    rows, parameters, _ = drawing.figure.axes
    for axes, along in ((rows, 0), (parameters, 1)):
        sizes = {points(line)[0][along]: line.get_markersize() for line in axes.lines if line.get_marker() == "o"}
        assert sizes[59] < sizes[60]
        assert sizes[66.2] < sizes[67.4]  # Table 6's of both layouts
    assert "light layout" in texts(drawing)


def test_figure2_draws_the_median_over_seeds_on_t0(tmp_path: Path) -> None:
    scores = {0: 60.0, 1: 61.0, 2: 68.0}
    drawing = figure_of(
        2, write_cells(tmp_path, {f"lora-s{seed}": _on_t0_3b("lora", seed, score) for seed, score in scores.items()})
    )
    drawn = {x for line in drawing.figure.axes[0].lines for x, _ in points(line)}
    assert 61.0 in drawn
    assert 63.0 not in drawn
    assert "each task's median over seeds" in " ".join(texts(drawing).split())


def _on_t0_3b(method: str, seed: int, score: float, **facts: Any) -> dict[str, Any]:
    return made_cell(method, 1, seed, dict.fromkeys(T0_TEST_TASKS, score), **T0_3B, **facts)
