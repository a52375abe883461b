"""The loss of every pre-training."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures.training import draw_training, smoothed
from mhrctl.report.logs import Log, read_logs
from tests.report.figures.made import points, texts


def test_training_has_a_legend_of_labels_and_not_of_seeds(metrics: Path) -> None:
    words = texts(draw_training(read_logs(metrics / "pretrain")))
    for part in ("lora", "mhr-h8", "mhr-h8-light", "loss"):
        assert part in words
    assert "s0" not in words


def test_training_without_logs_says_what_to_run() -> None:
    drawing = draw_training([])
    assert "mhrctl pretrain" in drawing.missing[0]
    assert "mhrctl pretrain" in texts(drawing)


def log(cell: str, *losses: float) -> Log:
    return Log(cell, tuple(range(10, 10 * len(losses) + 1, 10)), losses, ())


def test_a_line_is_smooth_and_each_seed_is_pale() -> None:
    rough = [1.0, 3.0] * 20
    (axes,) = draw_training([log("lora-s0", *rough), log("lora-s1", *rough)]).figure.axes
    pale, also_pale, smooth = axes.lines
    assert [y for _, y in points(pale)] == [y for _, y in points(also_pale)] == rough
    inner = [y for _, y in points(smooth)][2:-2]
    assert max(inner) - min(inner) < 0.5
    assert (pale.get_alpha() or 1) < (smooth.get_alpha() or 1)


def test_a_running_mean_is_as_long_as_what_it_is_of() -> None:
    assert smoothed([]) == []
    assert smoothed([2.0, 4.0]) == [2.0, 4.0]
    assert smoothed([3.0, 0.0, 6.0]) == [1.5, 3.0, 3.0]
    assert smoothed([5.0] * 100) == [5.0] * 100


def test_the_validation_loss_is_a_point_at_the_end_where_it_is_known() -> None:
    logs = [log("lora-s0", 2, 1, 0.5), log("lora-s1", 2, 1, 0.5), log("poly-s0", 2, 1, 0.5)]
    drawing = draw_training(logs, {"lora-s0": 0.7, "lora-s1": 0.8})
    (of_lora,) = [points(line) for line in drawing.figure.axes[0].lines if line.get_marker() == "o"]
    assert of_lora == [(30, 0.7), (30, 0.8)]
    assert "validation loss" in texts(drawing)
    assert "validation loss" not in texts(draw_training(logs))


def test_logs_of_two_steps_are_points() -> None:
    (axes,) = draw_training([log("lora-s0", 2, 1)]).figure.axes
    assert axes.lines[-1].get_linestyle() == "None"


def test_labels_are_in_the_order_of_their_numbers() -> None:
    drawing = draw_training([log(f"mhr-h{heads}-s0", 3, 2, 1) for heads in (64, 8, 128)])
    (legend,) = drawing.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mhr-h8", "mhr-h64", "mhr-h128"]
    assert len({line.get_linestyle() for line in drawing.figure.axes[0].lines}) == 3
