"""Layers of settings: recipes, methods, variants, overrides, the command line."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from mhrctl.config.cells import Cell, grid_cells
from mhrctl.config.resolve import load_params, resolve_cell, sources
from mhrctl.errors import ParamsError
from tests.config.mutations import FILES, complaint_of, mutations, resolve_all

MINIMAL = """\
recipe: {recipe}
prepare: {{source: jsonl, path: tasks, tokenizer: word}}
backbone: {{source: scratch}}
pretrain: {{log_every: 7}}
adapt: {{validation: 9, shots: 9, evaluate_every: 5}}
evaluate: {{}}
grid: {{seeds: [0], methods: {{lora: , mhr: {{heads: [4]}}}}}}
"""


def edited(project: Path, old: str, new: str) -> Path:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


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
    ("override", "message"),
    [
        ("nosuch-s0: {adapt: {lr: 0.5}}", r"params.yaml:\d+: grid.overrides: unknown cell 'nosuch-s0'"),
        (
            "mhr_z-h4-s0: {pretrain: {lr: 0.5}}",
            r"overrides.mhr_z-h4-s0: its pretrain is that of another cell: .* mhr-h4-s0",
        ),
    ],
)
def test_overrides_in_vain_are_rejected(project_file: Path, override: str, message: str) -> None:
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


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no such file; `mhrctl init` makes a project in"):
        load_params(tmp_path / "params.yaml")


def test_set_overrides_and_is_named_when_wrong(project: Path) -> None:
    path = project / "params.yaml"
    assert load_params(path, ["pretrain.lr=1e-3", "adapt.select=loss"]).params.pretrain.lr == 0.001
    for text, message in (
        ("pretrain.lr=-1", r"--set pretrain.lr: Input should be greater than 0"),
        ("pretrain.what=1", r"--set pretrain.what: unknown key"),
        ("pretrain", r"--set pretrain: expected SECTION.KEY=VALUE"),
        ("pretrain.lr.x=1", r"--set pretrain.lr.x: lr is not a section|pretrain.lr"),
    ):
        with pytest.raises(ParamsError, match=message):
            load_params(path, [text])


def test_a_setting_within_a_setting_reaches_the_cells(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text() + "    mosa: {pretrain: {options: {copies: 3}}}\n")
    sets = ["pretrain.options.sparse=full", "adapt.epoch_steps.swap=7", "adapt.epoch_steps.twice=2"]
    resolved = resolve_cell(load_params(params, sets), Cell(method="mosa"))
    assert resolved.pretrain.options == {"copies": 3, "sparse": "full"}
    assert resolved.adapt.epoch_steps == {"swap": 7, "twice": 2}
    with pytest.raises(ParamsError, match=r"--set pretrain.lr.x: lr is not a section"):
        load_params(params, ["pretrain.lr=1.0", "pretrain.lr.x=1"])


@pytest.mark.parametrize(
    ("method", "section", "options", "said"),
    [
        ("lora", "pretrain", "{copies: 3}", r"cell lora-s0: pretrain.options.copies: lora has no settings of its own"),
        (
            "mosa",
            "pretrain",
            "{copys: 3}",
            r"cell mosa-s0: pretrain.options.copys: unknown key 'copys'; did you mean 'copies'\?",
        ),
        ("mosa", "pretrain", "{copies: 1}", r"cell mosa-s0: pretrain.options.copies: .* greater than or equal to 2 \(got 1\)"),
        ("mosa", "pretrain", "{sparse: half}", r"cell mosa-s0: pretrain.options.sparse: .*'hierarchical' or 'full'"),
        ("poly", "adapt", "{density: 0.5}", r"cell poly-s0: adapt.options.density: poly has no settings of its own"),
        ("dare_linear", "adapt", "{election: total}", r"cell dare_linear-s0: adapt.options.election: unknown key 'election'"),
        ("ties", "adapt", "{density: 1.5}", r"cell ties-s0: adapt.options.density: .* less than or equal to 1 \(got 1.5\)"),
        ("knots_ties", "adapt", "{form: factors}", r"cell knots_ties-s0: adapt.options.form: .*'product'"),
    ],
)
def test_options_are_those_of_the_method(project: Path, method: str, section: str, options: str, said: str) -> None:
    settings = load_params(project / "params.yaml", [f"{section}.options={options}"])
    with pytest.raises(ParamsError, match=said):
        resolve_cell(settings, Cell(method=method))


def test_numbers_are_read_as_dvc_reads_them(project: Path) -> None:
    assert load_params(edited(project, "  skills: 2", "  skills: 2\n  lr: 1e-3")).params.pretrain.lr == 0.001


def test_methods_settings_and_overrides_reach_their_cells_only(project: Path) -> None:
    path = edited(project, "mhr_z: {heads: [4]}", "mhr_z: {heads: [4], adapt: {routing_lr: 0.5}}")
    edited(project, "    mhr: {heads: [4]}", "    mhr: {heads: [4], pretrain: {lr: 0.5}}")
    path.write_text(
        path.read_text() + "  overrides:\n    mhr_mu-h4-s0: {adapt: {lr: 0.25}}\n    poly-s0: {pretrain: {steps: 9}}\n"
    )
    params = load_params(path)
    cells = {cell.name: resolve_cell(params, cell) for cell in grid_cells(params.params)}
    assert [cell.pretrain.lr for cell in cells.values()] == [0.001, 0.001, 0.5, 0.5, 0.5]
    assert [cell.adapt.routing_lr for cell in cells.values()] == [0.1, 0.1, 0.1, 0.5, 0.1]
    assert [cell.adapt.lr for cell in cells.values()] == [0.001, 0.001, 0.001, 0.001, 0.25]
    assert [cell.pretrain.steps for cell in cells.values()] == [4, 9, 4, 4, 4]


def test_a_wrong_key_of_a_method_names_its_line(project: Path) -> None:
    path = edited(project, "mhr_z: {heads: [4]}", "mhr_z: {heads: [4], adapt: {rate: 1}}")
    with pytest.raises(ParamsError, match=r"params.yaml:42: grid.methods.mhr_z.adapt.rate: unknown key 'rate'"):
        load_params(path)


def test_a_search_makes_a_trial_of_every_combination(project_file: Path) -> None:
    text = project_file.read_text().replace(
        "    poly:", "    poly: {search: {lr: [0.25, 0.5], routing_lr: [0.1, 0.2]}, adapt: {lr: 9.0}}"
    )
    project_file.write_text(text)
    settings = load_params(project_file)
    cells = [cell for cell in grid_cells(settings.params) if cell.method == "poly"]
    assert [cell.name for cell in cells] == [f"poly-t{trial}-s0" for trial in (1, 2, 3, 4)]
    rates = [(adapt.lr, adapt.routing_lr) for adapt in (resolve_cell(settings, cell).adapt for cell in cells)]
    assert rates == [(0.25, 0.1), (0.25, 0.2), (0.5, 0.1), (0.5, 0.2)]
    assert {cell.pretrain_cell.name for cell in cells} == {"poly-s0"}
    assert sources(settings, cells[1], "adapt")["lr"] == "trial 2"
    assert cells[1].name == "poly-t2-s0"
    project_file.write_text(text.replace("search: {lr:", "search: {rate:"))
    with pytest.raises(ParamsError, match=r"grid.methods.poly.search.rate: unknown key 'rate'"):
        load_params(project_file)
    project_file.write_text(text.replace("[0.25, 0.5]", "[0.25, -1]"))
    with pytest.raises(ParamsError, match=r"params.yaml:40: grid.methods.poly.search.lr.1: Input should be greater than 0"):
        load_params(project_file)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_one_bad_value_anywhere_is_params_or_one_line(path: Path, tmp_path: Path) -> None:
    """A sample: a hundredth of what there is, another hundredth in each file; the campaigns try all of it."""
    copy = tmp_path / "params.yaml"
    tried = refused = 0
    for what, text in itertools.islice(mutations(path), FILES.index(path), None, 101):
        copy.write_text(text)
        said = complaint_of(lambda: resolve_all(copy))
        assert said is None or re.match(rf"{re.escape(str(copy))}:\d+: [^\n]+$", said), what
        tried, refused = tried + 1, refused + (said is not None)
    assert refused > tried / 2 > 5


def test_a_regular_mutation_is_what_it_says(tmp_path: Path) -> None:
    copy = tmp_path / "params.yaml"
    texts = dict(mutations(FILES[0]))
    copy.write_text(texts["grid.seeds.1 = -1"])
    assert complaint_of(lambda: resolve_all(copy)) == (
        f"{copy}:1: grid.seeds.1: Input should be greater than or equal to 0 (got -1)"
    )
    copy.write_text(texts["grid.seeds.1 = 0"])
    assert complaint_of(lambda: resolve_all(copy)) == f"{copy}:1: grid.seeds.1: 0 occurs twice"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    lora:", "    lora: {pretrain: {uniform_steps: 9}}", "lora does not read pretrain.uniform_steps"),
        (
            "    poly:",
            "    poly: {pretrain: {uniform_steps: 9}}",
            "params.yaml:40: cell poly-s0, from grid.methods.poly: pretrain.uniform_steps: uniform_steps 9 is more",
        ),
        (
            "    poly:",
            "    poly: {adapt: {epoch_steps: {a: 0}}}",
            "params.yaml:40: grid.methods.poly.adapt.epoch_steps.a: Input should be greater than 0 (got 0)",
        ),
        (
            "    poly:",
            "    poly: {pretrain: {options: {x: 1}}}",
            "params.yaml:40: cell poly-s0: pretrain.options.x: poly has no",
        ),
    ],
)
def test_layers_that_do_not_fit_each_other_name_the_line(project: Path, old: str, new: str, said: str) -> None:
    path = edited(project, old, new)
    assert said in (complaint_of(lambda: resolve_all(path)) or "")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lora-s0: {adapt: {rat: 1}}", "params.yaml:45: grid.overrides.lora-s0.adapt.rat: unknown key 'rat'"),
        (
            "lora-s0: {adapt: {lr: -1}}",
            "params.yaml:45: grid.overrides.lora-s0.adapt.lr: Input should be greater than 0 (got -1)",
        ),
        ("lora-s0: {adapt: {routing_lr: 0.5}}", "params.yaml:45: grid.overrides.lora-s0: lora does not read adapt.routing_lr"),
        ("../x: {adapt: {lr: 0.5}}", "params.yaml:45: grid.overrides: unknown cell '../x'"),
    ],
)
def test_overrides_are_held_to_their_sections(project_file: Path, override: str, said: str) -> None:
    project_file.write_text(project_file.read_text() + f"  overrides:\n    {override}\n")
    assert said in (complaint_of(lambda: load_params(project_file)) or "")
