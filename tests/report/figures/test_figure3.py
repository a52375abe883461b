"""Figure 3: alignment from logs or from what was measured, and sizes."""

from __future__ import annotations

from pathlib import Path

from tests.report.figures.made import ROUTING, SKILLS, cells, figure_of, points, routed, texts, write_logs
from tests.report.made import write_cells


def test_figure3_shows_what_was_measured_while_training_and_leaves_variants_out(metrics: Path) -> None:
    drawing = figure_of(3, metrics)
    words = texts(drawing)
    assert drawing.missing == ()
    for part in (
        "lora",
        "poly",
        "mhr-h8",
        "on the shared skills",
        "on the composed adapters",
        "step of pre-training",
        "16 skills",
        "parameters trained for a new task",
        "parameters kept of pre-training (skills alone)",
    ):
        assert part in words
    assert "light" not in words


def test_figure3_falls_back_on_what_align_measured(tmp_path: Path) -> None:
    write_logs(write_cells(tmp_path, cells()), aligned=False)
    (tmp_path / "align").mkdir()
    for name, step in (("mhr-h8-s0-start", 0), ("mhr-h8-s0", 20)):
        (tmp_path / f"align/{name}.json").write_text(
            f'{{"method": "mhr", "heads": 8, "variant": "plain", "seed": 0, "at": "end", "step": {step},'
            ' "shared": {"overall": 0.1}, "composed": {"overall": 0.2}}'
        )
    drawing = figure_of(3, tmp_path)
    assert drawing.missing == ("No gradient alignment of lora, poly yet: set pretrain.align_every, or run `mhrctl align`.",)
    assert "mhr-h8" in texts(drawing)
    curves = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_linestyle() for line in curves] == ["None"] * 2  # two points are no line
    assert len({line.get_markerfacecolor() for line in curves}) == 2


def test_figure3_has_room_below_for_the_name_of_the_lowest_point(tmp_path: Path) -> None:
    by_name = {name: cell for name, cell in cells().items() if name.endswith("s0")}  # one seed: no deviation makes room
    by_name["poly-k16-s0"] = routed("poly", 1, 0, 55, skills=2 * SKILLS, routing=2 * ROUTING, variant="k16") | {"skills": 16}
    drawing = figure_of(3, write_cells(tmp_path, by_name))
    drawing.figure.draw_without_rendering()
    for axes in drawing.figure.axes[1:]:
        (lowest,) = [text for text in axes.texts if text.get_text() == "16 skills"]
        assert lowest.get_window_extent().y0 > axes.bbox.y0


def test_figure3_tells_the_head_counts_of_a_method_apart(tmp_path: Path) -> None:
    write_logs(write_cells(tmp_path, cells()))
    (tmp_path / "pretrain/mhr-h32-s0.csv").write_text("step,loss,shared,composed\n10,2.0,,\n20,0.5,0.3,0.6\n")
    drawing = figure_of(3, tmp_path)
    curves = [line for line in drawing.figure.axes[0].lines if len(points(line)) == 1]
    assert len({(line.get_color(), line.get_marker()) for line in curves}) == 4  # lora, poly, mhr-h8, mhr-h32
    assert "mhr-h32" in texts(drawing)
