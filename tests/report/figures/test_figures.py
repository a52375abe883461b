"""Every figure with and without results: what is in it, and that it is a whole file."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mhrctl.errors import ParamsError
from mhrctl.report.figures import FIGURES
from mhrctl.report.trials import Choice
from tests.report.figures.made import figure_of, points, texts
from tests.report.made import both, made_cell, write_cells

CHOICES: tuple[Choice, ...] = ("by_task", "overall")


def test_figures_are_the_papers() -> None:
    assert FIGURES == (2, 3, 4)


def test_an_unknown_figure_is_reported_with_the_known_ones(metrics: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown figure '1'.*known: 2, 3, 4"):
        figure_of(1, metrics)


@pytest.mark.parametrize("number", FIGURES)
@pytest.mark.parametrize("results", [True, False], ids=["with results", "without"])
def test_a_figure_is_a_whole_png_and_a_whole_svg(metrics: Path, tmp_path: Path, number: int, results: bool) -> None:
    drawing = figure_of(number, metrics if results else tmp_path / "missing")
    image = Image.open(io.BytesIO(drawing.rendered("png")))
    image.load()
    assert image.width > 1000
    assert len(set(image.convert("L").tobytes())) > 20  # not blank
    assert f"Figure {number}" in texts(drawing)


@pytest.mark.parametrize("form", ["png", "svg"])
@pytest.mark.parametrize("number", FIGURES)
def test_equal_input_makes_equal_bytes(metrics: Path, number: int, form: Any) -> None:
    first = figure_of(number, metrics).rendered(form)
    assert figure_of(number, metrics).rendered(form) == first
    assert not re.search(rb"20\d\d-\d\d-\d\d|Matplotlib v", first)


def test_a_figure_has_the_trials_that_are_asked_for(tmp_path: Path) -> None:
    cells = {}
    for trial, of_tasks in enumerate(((50.0, 90.0), (80.0, 80.0)), 1):
        cell = made_cell("lora", 1, 0, both(60.0 + trial), trial=trial, validation=sum(of_tasks) / 2)
        for task, validation in zip(("one", "two"), of_tasks, strict=True):
            cell["by_task"][task]["validation"] = validation
        cells[f"lora-t{trial}-s0"] = cell
    write_cells(tmp_path, cells | {"poly-s0": made_cell("poly", 1, 0, both(60))})
    by_task, overall = (figure_of(2, tmp_path, trials).figure.axes[0].lines[0] for trials in CHOICES)
    assert [points(by_task)[0][0], points(overall)[0][0]] == [61.5, 62.0]  # 57 and 66 of two trials; trial 2


def test_a_figure_says_in_itself_what_is_missing(tmp_path: Path) -> None:
    for number in FIGURES:
        drawing = figure_of(number, tmp_path / "missing")
        assert drawing.missing
        words = re.sub(r"\s+", " ", texts(drawing))
        for sentence in drawing.missing:
            assert sentence in words
