"""Figure 3: alignment from logs or from what was measured, and sizes."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures import draw_figure
from tests.report.figures.made import cells, texts, write_logs
from tests.report.made import write_cells


def test_figure3_shows_what_was_measured_while_training_and_leaves_variants_out(metrics: Path) -> None:
    drawing = draw_figure(3, metrics)
    words = texts(drawing)
    assert drawing.missing == ()
    for part in (
        "lora",
        "poly",
        "mhr h8",
        "on the shared skills",
        "on the composed adapters",
        "step of pre-training",
        "16 skills",
    ):
        assert part in words
    assert "light" not in words


def test_figure3_falls_back_on_what_align_measured(tmp_path: Path) -> None:
    write_logs(write_cells(tmp_path, cells()), aligned=False)
    (tmp_path / "align").mkdir()
    (tmp_path / "align/mhr-h8-s0.json").write_text(
        '{"method": "mhr", "heads": 8, "variant": "plain", "seed": 0, "at": "end", "step": 20,'
        ' "shared": {"overall": 0.1}, "composed": {"overall": 0.2}}'
    )
    drawing = draw_figure(3, tmp_path)
    assert drawing.missing == ("No gradient alignment of lora, poly yet: set pretrain.align_every, or run `mhrctl align`.",)
    assert "mhr h8" in texts(drawing)
