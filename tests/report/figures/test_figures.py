"""Every figure with and without results: what is in it, and that it is a whole file."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.errors import ParamsError
from mhrctl.report.figures import FIGURES, draw_figure
from mhrctl.report.figures.sizes import coarser, more_heads, more_skills
from mhrctl.report.figures.style import LOOKS, Drawing, short
from mhrctl.report.figures.training import draw_training
from mhrctl.report.logs import read_logs
from mhrctl.report.results import read_results
from tests.report.made import both, made_cell, write_cells


def sized(method: str, heads: int, seed: int, score: float, adaptation: int, **facts: Any) -> dict[str, Any]:
    return made_cell(method, heads, seed, both(score), parameters={"multi_task": 9999, "adaptation": adaptation}, **facts)


def cells(**facts: Any) -> dict[str, dict[str, Any]]:
    found = {"backbone": made_cell("backbone", None, None, zero_shot=12.5, **facts)}
    for seed in (0, 1):
        found |= {
            f"lora-s{seed}": sized("lora", 1, seed, 60 + seed, 2000, **facts),
            f"poly-s{seed}": sized("poly", 1, seed, 62 + seed, 16_000, **facts),
            f"poly-k16-s{seed}": sized("poly", 1, seed, 63 + seed, 32_000, variant="k16", **facts | {"skills": 16}),
            f"mhr-h8-s{seed}": sized("mhr", 8, seed, 65 + seed, 17_000, **facts),
            f"poly_z-s{seed}": sized("poly_z", 1, seed, 58 + seed, 100, **facts),
            f"mhr_z-h8-s{seed}": sized("mhr_z", 8, seed, 61 + seed, 800, **facts),
            f"mhr_z-h8-block-s{seed}": sized(
                "mhr_z", 8, seed, 60 + seed, 80, variant="block", **facts | {"granularity": "block"}
            ),
            f"mhr_z-h8-light-s{seed}": sized("mhr_z", 8, seed, 59 + seed, 90, variant="light", **facts | {"layout": "light"}),
        }
    return found


def write_logs(metrics: Path, *, aligned: bool = True) -> Path:
    folder = metrics / "pretrain"
    folder.mkdir(parents=True)
    for name in ("lora-s0", "lora-s1", "poly-s0", "mhr-h8-s0", "mhr-h8-light-s0"):
        extra = [",shared,composed", ",,", ",0.25,0.5"] if aligned else ["", "", ""]
        (folder / f"{name}.csv").write_text(f"step,loss{extra[0]}\n10,2.0{extra[1]}\n20,0.5{extra[2]}\n")
    return metrics


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with all that Figures 3 and 4 can show."""
    return write_logs(write_cells(tmp_path, cells()))


def texts(drawing: Drawing) -> str:
    """What is written in the SVG, which must be well-formed."""
    return " ".join(text for text in ET.fromstring(drawing.rendered("svg")).itertext() if text.strip())  # noqa: S314


def test_figures_are_the_papers() -> None:
    assert FIGURES == (2, 3, 4)


def test_an_unknown_figure_is_answered_with_the_known_ones(metrics: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown figure '1'.*known: 2, 3, 4"):
        draw_figure(1, metrics)


def test_every_method_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == {BACKBONE, *METHODS}
    assert len(set(LOOKS.values())) == len(LOOKS)


@pytest.mark.parametrize("number", FIGURES)
@pytest.mark.parametrize("results", [True, False], ids=["with results", "without"])
def test_a_figure_is_a_whole_png_and_a_whole_svg(metrics: Path, tmp_path: Path, number: int, results: bool) -> None:
    drawing = draw_figure(number, metrics if results else tmp_path / "missing")
    image = Image.open(io.BytesIO(drawing.rendered("png")))
    image.load()
    assert image.width > 1000
    assert len(set(image.convert("L").tobytes())) > 20  # not blank
    assert f"Figure {number}" in texts(drawing)


@pytest.mark.parametrize("form", ["png", "svg"])
@pytest.mark.parametrize("number", FIGURES)
def test_equal_input_makes_equal_bytes(metrics: Path, number: int, form: Any) -> None:
    first = draw_figure(number, metrics).rendered(form)
    assert draw_figure(number, metrics).rendered(form) == first
    assert not re.search(rb"20\d\d-\d\d-\d\d|Matplotlib v", first)


def test_a_figure_says_in_itself_what_is_missing(tmp_path: Path) -> None:
    for number in FIGURES:
        drawing = draw_figure(number, tmp_path / "missing")
        assert drawing.missing
        words = re.sub(r"\s+", " ", texts(drawing))
        for sentence in drawing.missing:
            assert sentence in words


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
        ("google/t5-xl-lm-adapt", "T0, T5-XL-LM", "No cells of ia3, adapter_soup, lora_big for T0 on T5-XL-LM yet."),
        ("bigscience/T0_3B", "T0, T0-3B", "No cells of tfew, adapter_soup for T0 on T0-3B yet."),
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
    assert "No cells of lora_big for superni, google/t5-xl-lm-adapt yet." in drawing.missing


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


def test_figure4_shows_heads_skills_granularity_and_the_papers(metrics: Path) -> None:
    drawing = draw_figure(4, metrics)
    words = texts(drawing)
    for part in ("h1", "h8", "h8 layer", "h8 block", "the paper: T0, T5-XL-LM", "Dots: the authors' notebook, not proof-read."):
        assert part in words
    assert drawing.missing == ("No cells of more skills yet: add a variant with pretrain.skills to poly_z.",)


def test_series_differ_in_one_thing_only(metrics: Path) -> None:
    results = read_results(metrics)
    heads = more_heads(results, "poly", "mhr")
    assert ([group.label for group in heads.groups], heads.names) == (["poly", "mhr h8"], ["h1", "h8"])
    (skills,) = more_skills(results, "poly", "mhr")
    assert ([group.label for group in skills.groups], skills.names) == (["poly", "poly k16"], ["8 skills", "16 skills"])
    routings = {series.groups[0].method: series.names for series in coarser(results, "poly_z", "mhr_z")}
    assert routings == {"poly_z": ["h1 layer"], "mhr_z": ["h8 block", "h8 layer"]}  # by parameters; not the light one


def test_training_has_a_legend_of_labels_and_not_of_seeds(metrics: Path) -> None:
    words = texts(draw_training(read_logs(metrics / "pretrain")))
    for part in ("lora", "mhr h8", "mhr h8 light", "loss"):
        assert part in words
    assert "s0" not in words


def test_training_without_logs_says_what_to_run() -> None:
    drawing = draw_training([])
    assert "mhrctl pretrain" in drawing.missing[0]
    assert "mhrctl pretrain" in texts(drawing)


@pytest.mark.parametrize(("count", "text"), [(0.5, "0.5"), (20, "20"), (1000, "1K"), (2e7, "20M"), (3e9, "3B")])
def test_short(count: float, text: str) -> None:
    assert short(count) == text


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    drawing = draw_figure(2, write_cells(tmp_path, cells(backbone="a$_b$<c>&")))
    assert "a$_b$<c>&" in texts(drawing)
    drawing.rendered("png")
