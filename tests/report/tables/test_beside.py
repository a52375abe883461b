"""Ours beside the paper's: differences, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.report.tables import build_table
from mhrctl.report.tables.beside import human, named
from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import everywhere, notes, row


def test_a_difference_needs_one_metric_and_is_a_reproduction_on_one_suite_and_backbone(metrics: Path) -> None:
    said = notes(build_table(2, metrics, []))
    for part in ("compositional", "scratch-1.2M", "SuperNI", "T5-XL-LM", "Rouge-L", "no reproduction"):
        assert part in said
    everywhere(metrics, suite="superni", backbone="google/t5-xl-lm-adapt")
    assert "no reproduction" not in notes(build_table(2, metrics, []))
    everywhere(metrics, suite="t0", metric="accuracy")
    assert "no difference to take" in notes(build_table(2, metrics, []))
    assert row(build_table(2, metrics, []), "lora")[-2:] == ["67.6±0.8", "-"]


def test_many_names_are_counted() -> None:
    assert named([f"c{number}" for number in range(14)]).endswith("c11 and 2 more")


def test_a_chosen_trial_is_named(metrics: Path) -> None:
    trials = {
        f"poly-t{trial}-s0": made_cell("poly", 1, 0, both(50.0), validation=40.0 + trial, trial=trial, settings={"lr": trial})
        for trial in (1, 2)
    }
    assert "poly: of 2 trials number 2" in notes(build_table(2, write_cells(metrics, trials), []))


def test_a_difference_that_rounds_to_nothing_has_no_minus(metrics: Path) -> None:
    write_cells(metrics, {"poly-s0": made_cell("poly", 1, 0, both(67.77))})
    assert row(build_table(2, metrics, []), "poly")[-2:] == ["67.8±0.8", "+0.0"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (3456, "3.5K"),
        (17_695, "17.7K"),
        (960_000, "960.0K"),
        (999_949, "999.9K"),
        (999_950, "1.0M"),
        (2_211_840, "2.2M"),
        (2_849_757_184, "2.8B"),
    ],
)
def test_human(count: int, text: str) -> None:
    assert human(count) == text
