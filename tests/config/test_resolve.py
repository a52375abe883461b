"""Layers of settings: recipes, methods, variants, overrides, the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.cells import Cell, grid_cells
from mhrctl.config.methods import METHODS
from mhrctl.config.recipes import RECIPES
from mhrctl.config.resolve import load_params, resolve_cell, sources
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


@pytest.fixture
def project_file(project: Path) -> Path:
    return project / "params.yaml"


def test_a_recipe_in_the_file_fills_in_what_the_file_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(MINIMAL.format(recipe="t0"))
    settings = load_params(path)
    lora, mhr = (resolve_cell(settings, Cell(method=name, heads=heads)) for name, heads in (("lora", 1), ("mhr", 4)))
    assert (lora.pretrain.steps, lora.pretrain.batch_size * lora.pretrain.accumulation) == (100_000, 16)
    assert (lora.pretrain.optimizer, lora.pretrain.scale_parameter, mhr.pretrain.scale_parameter) == ("adafactor", True, False)
    assert (mhr.adapt.scale_parameter, mhr.adapt.lr, mhr.adapt.mc_weight) == (True, 3e-3, 1.0)
    assert (mhr.adapt.shots, mhr.pretrain.log_every) == (9, 7)
    assert settings.params.prepare.max_input_tokens == 256


def test_superni_as_the_reference_recipe_has_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(MINIMAL.format(recipe="superni"))
    settings = load_params(path)
    cells = {name: resolve_cell(settings, Cell(method=name)).pretrain for name in ("lora", "poly", "ia3")}
    assert [cell.lr for cell in cells.values()] == [5e-5, 1e-3, 5e-5]
    poly = cells["poly"]
    assert (poly.loss, poly.label_smoothing, poly.clip_norm, poly.weight_decay) == ("example_sum", 0.1, 0.1, 0.01)
    assert (poly.rank, poly.targets, poly.relaxed_bernoulli) == (1, "light", False)
    path.write_text(MINIMAL.format(recipe="superni_attention"))
    poly = resolve_cell(load_params(path), Cell(method="poly")).pretrain
    assert (poly.rank, poly.targets, poly.relaxed_bernoulli) == (16, ["q", "k", "v", "o"], True)


def test_a_recipe_on_the_command_line_goes_over_the_file_and_under_set(project_file: Path) -> None:
    settings = load_params(project_file, ["pretrain.lr=0.5"], "superni")
    resolved = resolve_cell(settings, Cell(method="lora"))
    assert (resolved.pretrain.steps, resolved.pretrain.lr, resolved.adapt.shots) == (25_000, 0.5, 100)
    assert resolved.pretrain.log_every == 2
    with pytest.raises(ParamsError, match=r"unknown recipe 't1' \(known: t0, superni"):
        load_params(project_file, recipe_name="t1")


def test_set_is_over_what_the_grid_says_of_a_method(project_file: Path) -> None:
    project_file.write_text(project_file.read_text().replace("    lora:", "    lora: {adapt: {lr: 0.25}}"))
    assert resolve_cell(load_params(project_file), Cell(method="lora")).adapt.lr == 0.25
    assert resolve_cell(load_params(project_file, ["adapt.lr=0.5"]), Cell(method="lora")).adapt.lr == 0.5


def test_every_layer_is_over_the_one_before(project_file: Path) -> None:
    text = project_file.read_text().replace("  seeds: [0]", "  seeds: [0]\n  variants:\n    v: {pretrain: {rank: 3}}")
    text = text.replace("    lora:", "    lora: {variants: [plain, v]}\n    lora_big: {variants: [v], pretrain: {alpha: 2.0}}")
    text += "  overrides:\n    lora-v-s0: {pretrain: {rank: 5}}\n"
    project_file.write_text(text)
    settings = load_params(project_file)
    ranks = {cell.name: resolve_cell(settings, cell).pretrain.rank for cell in grid_cells(settings.params)}
    assert {name: ranks[name] for name in ("lora-s0", "lora-v-s0", "lora_big-v-s0")} == {
        "lora-s0": 1,
        "lora-v-s0": 5,
        "lora_big-v-s0": 3,
    }
    assert resolve_cell(settings, Cell(method="lora_big")).pretrain.rank == 16
    cell = Cell(method="lora_big", variant="v")
    assert sources(settings, cell, "pretrain")["rank"] == "grid.variants.v"
    assert sources(settings, cell, "pretrain")["alpha"] == "grid.methods.lora_big"
    with pytest.raises(ParamsError, match=r"--variant: unknown variant 'w' \(known: plain, v\)"):
        resolve_cell(settings, Cell(method="lora", variant="w"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    lora:", "    lora: {variants: [light]}", r"methods.lora.variants: unknown variant 'light' \(known: plain\)"),
        ("  seeds: [0]", "  seeds: [0]\n  variants: {h8: {pretrain: {rank: 2}}}", r"variant 'h8': a name is lower-case"),
        ("  seeds: [0]", "  seeds: [0]\n  variants: {v: {adapt: {lr: 1.0}}}", r"grid.variants.v.pretrain: is missing"),
        ("    poly:", "    poly: {extra_steps: [5]}", r"poly has no `extra_steps`"),
        ("  skills: 2", "  skills: 2\n  straight_through: true", r"straight_through rounds sampled gates"),
        ("  skills: 2", "  skills: 2\n  routing_blocks: 2", r"routing_blocks 2 needs granularity block"),
        ("  skills: 2", "  skills: 2\n  uniform_steps: 9", r"uniform_steps 9 is more than steps 4"),
        ("recipe: null", "recipe: t5", r"params.yaml:\d+: recipe: Input should be 't0', 'superni' or 'superni_attention'"),
    ],
)
def test_mistakes_of_the_grid_are_answered(project_file: Path, old: str, new: str, message: str) -> None:
    text = project_file.read_text()
    assert old in text
    project_file.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=message):
        load_params(project_file)


def test_recipes_name_methods_and_keys_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for name, recipe in RECIPES.items():
        assert set(recipe.methods) <= set(METHODS)
        path.write_text(MINIMAL.format(recipe=name))
        settings = load_params(path)
        for method, row in METHODS.items():
            resolve_cell(settings, Cell(method=method, heads=4 if row.multi_head else 1))


def test_cells_of_extra_steps(project_file: Path) -> None:
    project_file.write_text(
        project_file.read_text().replace("mhr_mu: {heads: [4]}", "mhr_mu: {heads: [4], extra_steps: [2, 6]}")
    )
    settings = load_params(project_file)
    cells = {cell.name: cell for cell in grid_cells(settings.params) if cell.method == "mhr_mu"}
    assert list(cells) == ["mhr_mu-h4-s0", "mhr_mu-h4-x2-s0", "mhr_mu-h4-x6-s0"]
    cell = cells["mhr_mu-h4-x6-s0"]
    assert (cell.origin[0], cell.origin[1].name) == ("average", "mhr-h4-s0")
    assert (cell.start[0], cell.start[1].name) == ("pretrain", "mhr_mu-h4-x6-s0")
    assert resolve_cell(settings, cell).pretrain.steps == 6
    assert cell.options == "--method mhr_mu --heads 4 --extra-steps 6 --seed 0"
    with pytest.raises(ParamsError, match="mhr is no single adapter"):
        Cell(method="mhr", heads=4, extra_steps=1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nosuch-s0: {adapt: {lr: 0.5}}", r"params.yaml:\d+: grid.overrides: unknown cell 'nosuch-s0'"),
        (
            "mhr_z-h4-s0: {pretrain: {lr: 0.5}}",
            r"overrides.mhr_z-h4-s0: its pretrain is that of another cell: .* mhr-h4-s0",
        ),
    ],
)
def test_overrides_in_vain_are_answered(project_file: Path, override: str, message: str) -> None:
    project_file.write_text(project_file.read_text() + f"  overrides:\n    {override}\n")
    with pytest.raises(ParamsError, match=message):
        load_params(project_file)


def test_a_cell_of_extra_steps_has_overrides_of_its_own(project_file: Path) -> None:
    text = project_file.read_text().replace("    lora:", "    lora: {extra_steps: [3]}")
    project_file.write_text(text + "  overrides:\n    lora-x3-s0: {pretrain: {lr: 0.5}}\n")
    settings = load_params(project_file)
    rates = [resolve_cell(settings, cell).pretrain.lr for cell in grid_cells(settings.params) if cell.method == "lora"]
    assert rates == [0.001, 0.5]


def test_a_recipe_on_the_command_line_goes_over_the_grids_methods(project_file: Path) -> None:
    text = project_file.read_text().replace("mhr_z: {heads: [4]}", "mhr_z: {heads: [4], adapt: {routing_lr: 0.5}}")
    project_file.write_text(text)
    cell = Cell(method="mhr_z", heads=4)
    assert resolve_cell(load_params(project_file), cell).adapt.routing_lr == 0.5
    assert resolve_cell(load_params(project_file, recipe_name="superni"), cell).adapt.routing_lr == 0.1


def test_a_search_makes_a_trial_of_every_combination(project_file: Path) -> None:
    text = project_file.read_text().replace(
        "    poly:", "    poly: {search: {lr: [0.25, 0.5], routing_lr: [0.1, 0.2]}, adapt: {lr: 9.0}}"
    )
    project_file.write_text(text)
    settings = load_params(project_file)
    cells = [cell for cell in grid_cells(settings.params) if cell.method == "poly"]
    assert [cell.name for cell in cells] == [f"poly-t{trial}-s0" for trial in (1, 2, 3, 4)]
    rates = [(own.lr, own.routing_lr) for own in (resolve_cell(settings, cell).adapt for cell in cells)]
    assert rates == [(0.25, 0.1), (0.25, 0.2), (0.5, 0.1), (0.5, 0.2)]
    assert {cell.pretrain_cell.name for cell in cells} == {"poly-s0"}
    assert sources(settings, cells[1], "adapt")["lr"] == "trial 2"
    assert cells[1].options == "--cell poly-t2-s0"
    project_file.write_text(text.replace("search: {lr:", "search: {rate:"))
    with pytest.raises(ParamsError, match=r"methods.poly.search: unknown setting of adapt 'rate'"):
        load_params(project_file)
    project_file.write_text(text.replace("[0.25, 0.5]", "[0.25, -1]"))
    settings = load_params(project_file)
    with pytest.raises(ParamsError, match=r"cell poly-t3-s0, from trial 3: adapt.lr: Input should be greater than 0"):
        resolve_cell(settings, grid_cells(settings.params)[3])
