"""The study of pools on a real model takes tasks by the rule of the study of claims, and rates that were searched for it."""

from __future__ import annotations

import pytest

from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from tests.pipelines.test_gemma import CLONE, needs_data
from tests.pipelines.tiny import ROOT, script, split_names

POOL, CLAIMS, RATES = (ROOT / "pipelines" / name for name in ("pool-superni", "claims-superni", "claims-superni-rates"))


@needs_data
def test_the_training_tasks_are_the_shortest_of_many_kinds() -> None:
    held_out = split_names(POOL, "test_tasks.txt")
    rule = script(CLAIMS / "choose.py")
    assert split_names(POOL, "train_tasks.txt") == rule.chosen(CLONE, held_out, tasks=24, of_a_category=2)


def test_the_test_tasks_are_some_of_the_study_of_claims() -> None:
    pool, claims = (load_params(study / "params.yaml").params for study in (POOL, CLAIMS))
    assert set(pool.prepare.test_tasks) < set(claims.prepare.test_tasks)
    assert pool.prepare.model_copy(update={"test_tasks": claims.prepare.test_tasks}) == claims.prepare
    assert (pool.backbone, pool.evaluate) == (claims.backbone, claims.evaluate)
    assert split_names(POOL, "test_tasks.txt") == split_names(CLAIMS, "test_tasks.txt")


@pytest.mark.parametrize("method", ["lora", "mhr"])
def test_what_is_trained_together_has_the_rates_of_its_search(method: str) -> None:
    choose, params = script(RATES / "choose.py"), load_params(POOL / "params.yaml")
    trials = choose.read_tried(choose.TRIED)
    before, after = (choose.best(one for one in trials if one.stage == stage)[method] for stage in ("pretrain", "adapt"))
    (cell,) = [resolve_cell(params, cell) for cell in grid_cells(params.params) if cell.method == method]
    assert (cell.pretrain.lr, f"lr {cell.adapt.lr:g}") == (before.pretrain, after.adapt)
