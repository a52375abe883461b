"""The loss of every pre-training."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures.training import draw_training
from mhrctl.report.logs import read_logs
from tests.report.figures.made import texts


def test_training_has_a_legend_of_labels_and_not_of_seeds(metrics: Path) -> None:
    words = texts(draw_training(read_logs(metrics / "pretrain")))
    for part in ("lora", "mhr h8", "mhr h8 light", "loss"):
        assert part in words
    assert "s0" not in words


def test_training_without_logs_says_what_to_run() -> None:
    drawing = draw_training([])
    assert "mhrctl pretrain" in drawing.missing[0]
    assert "mhrctl pretrain" in texts(drawing)
