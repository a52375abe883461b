"""Cells folded over seeds, the two aggregations, and trials of a search, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.evaluation.scores import CellMetrics
from mhrctl.report.results import Group, fold_seeds, read_results
from tests.report.made import both, made_cell, write_cells


def folded(cells: dict[str, dict[str, Any]]) -> list[Group]:
    return fold_seeds({name: CellMetrics.model_validate(cell) for name, cell in cells.items()})


def test_groups_are_methods_heads_variants_and_extra_steps_in_the_order_of_the_methods() -> None:
    cells = {
        "mhr-h16-s0": made_cell("mhr", 16, 0, both(10)),
        "mhr-h8-s1": made_cell("mhr", 8, 1, both(10)),
        "mhr-h8-s0": made_cell("mhr", 8, 0, both(10)),
        "mhr-h8-light-s0": made_cell("mhr", 8, 0, both(10), variant="light"),
        "lora-x100-s0": made_cell("lora", 1, 0, extra_steps=100),
        "lora-s0": made_cell("lora", 1, 0, both(10)),
        "backbone": made_cell("backbone", None, None),
    }
    groups = folded(cells)
    assert [(group.label, group.extra_steps, list(group.cells)) for group in groups] == [
        ("backbone", 0, ["backbone"]),
        ("lora", 0, ["lora-s0"]),
        ("lora", 100, ["lora-x100-s0"]),
        ("mhr-h8", 0, ["mhr-h8-s0", "mhr-h8-s1"]),
        ("mhr-h8-light", 0, ["mhr-h8-light-s0"]),
        ("mhr-h16", 0, ["mhr-h16-s0"]),
    ]


def test_the_two_aggregations_differ() -> None:
    (group,) = folded(
        {
            "poly-s0": made_cell("poly", 1, 0, {"a": 10.0, "b": 50.0}),
            "poly-s1": made_cell("poly", 1, 1, {"a": 20.0, "b": 90.0}),
            "poly-s2": made_cell("poly", 1, 2, {"a": 60.0, "b": 70.0}),
        }
    )
    # seeds: 30, 55, 65 have the mean 50, squares 400 + 25 + 225, over 2, root 18.03
    assert str(group.mean("adapted")) == "50.0±18.0"
    # medians 20 and 70 have the mean 45; a deviates by 26.46 (squares 400 + 100 + 900, over 2), b by 20 (400 + 0 + 400, over 2)
    assert str(group.median("adapted")) == "45.0±23.2"
    assert group.score("adapted") == group.mean("adapted")


def test_the_score_of_t0_is_the_papers() -> None:
    cells = {f"poly-s{seed}": made_cell("poly", 1, seed, {"a": 10.0 + seed**2, "b": 50.0}, suite="t0") for seed in range(3)}
    (group,) = folded(cells)
    assert group.score("adapted") == group.median("adapted") != group.mean("adapted")
    assert str(group.score("zero_shot")) == "40.0±0.0"


def test_a_group_without_adaptation_has_no_adapted_scores() -> None:
    (group,) = folded({"backbone": made_cell("backbone", None, None, zero_shot=12.0)})
    assert group.mean("adapted") is None
    assert group.median("adapted") is None
    assert str(group.mean("zero_shot")) == "12.0"


def test_no_scores_are_no_error(tmp_path: Path) -> None:
    results = read_results(tmp_path)
    assert (results.cells, results.groups, results.suite, results.metric_name) == ({}, [], None, "score")
    assert results.lacking(["lora-s0"]) == ["lora-s0"]


def test_malformed_scores_are(tmp_path: Path) -> None:
    write_cells(tmp_path, {"lora-s0": made_cell("lora", 1, 0, both(50)) | {"metric": "bleu"}})
    with pytest.raises(ArtifactError, match=r"lora-s0\.json: metric"):
        read_results(tmp_path)


def test_results_say_what_they_are_of(tmp_path: Path) -> None:
    cells = {"lora-s0": made_cell("lora", 1, 0, both(50), metric="accuracy", suite="t0", backbone="bigscience/T0_3B")}
    results = read_results(write_cells(tmp_path, cells))
    assert (results.suite, results.backbone, results.metric, results.metric_name) == (
        "t0",
        "bigscience/T0_3B",
        "accuracy",
        "accuracy",
    )
