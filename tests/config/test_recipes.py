"""The paper's settings, as the reference recipe has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.recipes import RECIPES, recipe
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.errors import ParamsError

MINIMAL = """\
recipe: {recipe}
prepare: {{source: jsonl, path: tasks, tokenizer: word}}
backbone: {{source: scratch}}
pretrain: {{log_every: 7}}
adapt: {{validation: 9, shots: 9, evaluate_every: 5}}
evaluate: {{}}
grid: {{seeds: [0], methods: {{lora: , mhr: {{heads: [4]}}}}}}
"""


def test_superni_as_the_reference_recipe_has_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(MINIMAL.format(recipe="superni"))
    settings = load_params(path)
    cells = {name: resolve_cell(settings, Cell(method=name)).pretrain for name in ("lora", "poly", "ia3")}
    assert [cell.lr for cell in cells.values()] == [5e-5, 1e-3, 5e-5]
    poly = cells["poly"]
    assert (poly.loss, poly.label_smoothing, poly.clip_norm, poly.weight_decay) == ("example_sum", 0.1, 0.1, 0.01)
    assert (poly.rank, poly.targets, poly.relaxed_bernoulli) == (1, "light", False)
    assert (poly.steps, poly.keep, poly.validate_every) == (25_000, "best", 5000)  # of five
    adapt = resolve_cell(settings, Cell(method="poly")).adapt
    assert (adapt.keep_start, adapt.keep_last) == (False, False)
    path.write_text(MINIMAL.format(recipe="superni_attention"))
    poly = resolve_cell(load_params(path), Cell(method="poly")).pretrain
    assert (poly.rank, poly.targets, poly.relaxed_bernoulli) == (16, "attention", True)
    assert (poly.keep, poly.validate_every) == ("best", 5000)
    path.write_text(MINIMAL.format(recipe="t0"))
    assert resolve_cell(load_params(path), Cell(method="poly")).pretrain.keep == "last"


def test_recipes_name_methods_and_keys_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for name, each in RECIPES.items():
        assert set(each.methods) <= set(METHODS)
        path.write_text(MINIMAL.format(recipe=name))
        settings = load_params(path)
        for method, row in METHODS.items():
            resolve_cell(settings, Cell(method=method, heads=4 if row.multi_head else 1))


def test_an_unknown_recipe_is_rejected_with_those_there_are() -> None:
    assert recipe("t0") is RECIPES["t0"]
    with pytest.raises(ParamsError, match=r"unknown recipe 't1' \(known: t0, superni, superni_attention\)"):
        recipe("t1")


def test_recipes_have_sections_of_params() -> None:
    for each in RECIPES.values():
        sections = {*each.sections, *(section for settings in each.methods.values() for section in settings)}
        assert sections <= Params.model_fields.keys()
