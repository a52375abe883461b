"""The rates of the study of claims are chosen by validation alone, and a rate of pre-training is of all that share it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from tests.pipelines.tiny import ROOT, script
from tests.report.made import both, made_cell, write_cells

RATES, STUDY = ROOT / "pipelines/claims-rates", ROOT / "pipelines/claims-compositional"


@pytest.fixture(scope="module")
def choose() -> ModuleType:
    """The rule."""
    return script(RATES / "choose.py")


def cell(method: str, variant: str, trial: int, *, validation: float, score: float, **settings: float) -> dict[str, Any]:
    facts: dict[str, Any] = {"variant": variant, "trial": trial, "settings": settings}
    heads = 8 if method.startswith("mhr") else 1
    return made_cell(method, heads, 100, adapted=both(score), validation=validation, **facts)


def test_validation_chooses_and_not_the_scores(choose: ModuleType, tmp_path: Path) -> None:
    shutil.copy(RATES / "params.yaml", tmp_path)
    cells = {
        "lora-slow-s100": cell("lora", "slow", 0, validation=60, score=70, lr=0.002),
        "lora-t1-s100": cell("lora", "plain", 1, validation=70, score=50, lr=0.005),
        "lora-untrained-t2-s100": cell("lora", "untrained", 2, validation=40, score=40, lr=0.01),
        "mhr-h8-fast-s100": cell("mhr", "fast", 0, validation=62, score=60, lr=0.002),
        "mhr-h8-s100": cell("mhr", "plain", 0, validation=61, score=70, lr=0.002),
        "mhr_mu-h8-fast-s100": cell("mhr_mu", "fast", 0, validation=55, score=60, lr=0.002),
        "mhr_mu-h8-s100": cell("mhr_mu", "plain", 0, validation=59, score=60, lr=0.002),
        "backbone": made_cell("backbone", None, None),
    }
    write_cells(tmp_path / "data/metrics", cells)
    of_method = choose.tried(tmp_path)
    assert [one.validation for one in of_method["mhr"]] == [62, 61]
    chosen = {called: (one.pretrain, one.adapt) for called, one in choose.chosen(of_method).items()}
    assert chosen == {
        "lora": (0.005, "lr 0.005"),
        "lora untrained": (None, "lr 0.01"),
        "mhr": (0.01, "lr 0.002"),
        "mhr_mu": (0.01, "lr 0.002"),  # the pre-training is that of mhr, which is best at this rate
    }


def test_every_method_is_tried_alike() -> None:
    params = load_params(RATES / "params.yaml").params
    tried: dict[str, list[float]] = {}
    for method, part in params.grid.methods.items():
        assert [variant for variant in part.variants if variant != "untrained"] == ["slow", "plain", "fast"]
        ((rate, values),) = part.search.items()
        assert rate == ("routing_lr" if method.endswith("_z") else "lr")
        tried[method] = values
    plainest = tried.pop("lora")  # also without pre-training, for which three were not enough
    assert {tuple(values) for method, values in tried.items() if not method.endswith("_z")} == {tuple(plainest[:3])}
    assert {len(values) for values in tried.values()} == {3}


def test_the_study_has_the_rates_that_were_chosen(choose: ModuleType) -> None:
    params = load_params(STUDY / "params.yaml")
    chosen = choose.chosen(choose.tried(RATES))
    cells = {
        f"{each.method} untrained" if each.variant == "untrained" else each.method: each
        for each in grid_cells(params.params)
        if each.variant in ("plain", "untrained") and not each.extra_steps and each.heads <= 8
    }
    assert set(cells) == set(chosen)
    for called, each in cells.items():
        of_cell = resolve_cell(params, each)
        best = chosen[called]
        assert best.pretrain in (None, of_cell.pretrain.lr), called
        assert best.adapt in (f"lr {of_cell.adapt.lr:g}", f"routing_lr {of_cell.adapt.routing_lr:g}"), called


def test_the_study_differs_in_rates_seeds_and_examples_to_validate_on_alone() -> None:
    rates, study = (load_params(folder / "params.yaml").params for folder in (RATES, STUDY))
    for section in ("prepare", "backbone", "evaluate"):
        assert getattr(rates, section) == getattr(study, section)
    of_rates = {"lr": rates.pretrain.lr}
    assert study.pretrain.model_copy(update=of_rates) == rates.pretrain
    assert study.adapt.model_copy(update={"validation": rates.adapt.validation, "lr": rates.adapt.lr}) == rates.adapt
    assert not set(study.grid.seeds) & set(rates.grid.seeds)
