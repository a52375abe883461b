"""Figure 2: which panel shows what, and what it says is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.report.figures import draw_figure
from tests.report.figures.made import cells, texts
from tests.report.made import write_cells


def test_figure2_sets_ours_apart_from_t0_and_names_every_method(metrics: Path) -> None:
    drawing = draw_figure(2, metrics)
    words = texts(drawing)
    for part in (
        "ours: compositional, scratch-1.2M",
        "ROUGE-L (bare backbone, zero-shot: 12.5)",
        "T0, T5-XL-LM",
        "mhr_z h8 block",
    ):
        assert part in words
    assert drawing.missing == ("No cells of T0 on T5-XL-LM yet.", "No cells of T0 on T0-3B yet.")


@pytest.mark.parametrize(
    ("backbone", "title", "lacking"),
    [
        (
            "google/t5-xl-lm-adapt",
            "T0, T5-XL-LM",
            "No cells of lora_big, ia3, adapter_soup, mhr h64, mhr_z h64 for T0 on T5-XL-LM yet.",
        ),
        ("bigscience/T0_3B", "T0, T0-3B", "No cells of tfew, adapter_soup, mhr_z h64 for T0 on T0-3B yet."),
        ("google/t5-large-lm-adapt", "T0, T5-XL-LM; ours: google/t5-large-lm-adapt", "No cells of T0 on T0-3B yet."),
    ],
)
def test_figure2_draws_ours_on_t0_in_the_panel_of_the_backbone(tmp_path: Path, backbone: str, title: str, lacking: str) -> None:
    drawing = draw_figure(2, write_cells(tmp_path, cells(suite="t0", backbone=backbone, metric="accuracy")))
    words = texts(drawing)
    assert title in words
    assert "ours: compositional" not in words
    assert lacking in drawing.missing


def test_figure2_on_superni_has_the_papers_scores_of_superni(tmp_path: Path) -> None:
    drawing = draw_figure(2, write_cells(tmp_path, cells(suite="superni", backbone="google/t5-xl-lm-adapt", layout="light")))
    assert "No cells of lora_big, mhr_z h64 for superni, google/t5-xl-lm-adapt yet." in drawing.missing
