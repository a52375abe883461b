"""Cells: their names, and where each starts from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mhrctl.config.cells import LOWERED, Cell, cell_called, cell_of, grid_cells, label_called, label_of, method_of
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.errors import ParamsError


@pytest.fixture
def project_file(project: Path) -> Path:
    return project / "params.yaml"


def test_names_of_cells() -> None:
    cell = Cell(method="mhr_z", heads=8, seed=2)
    assert (cell.name, cell.pretrain_cell.name) == ("mhr_z-h8-s2", "mhr-h8-s2")
    assert Cell(method="lora", seed=1).name == "lora-s1"
    with pytest.raises(ParamsError, match=r"--heads 8: lora has one head"):
        Cell(method="lora", heads=8)


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
    assert cell.label == "mhr_mu-h4-x6"
    with pytest.raises(ParamsError, match="mhr is no single adapter"):
        Cell(method="mhr", heads=4, extra_steps=1)


def test_cells_of_single_variants(project_file: Path) -> None:
    text = project_file.read_text().replace(
        "  seeds: [0]", "  seeds: [0, 1]\n  variants: {light: {pretrain: {targets: light}}}"
    )
    text = text.replace("mhr_z: {heads: [4]}", "mhr_z: {heads: {plain: [4, 2], light: [2]}, variants: [plain, light]}")
    text = text.replace("    lora:", "    lora: {variants: [plain, light], extra_steps: {plain: [5]}}")
    project_file.write_text(text)
    params = load_params(project_file).params
    cells = grid_cells(params)
    assert [cell.name for cell in cells if cell.method == "mhr_z"] == [
        f"mhr_z-{point}-s{seed}" for point in ("h4", "h2", "h2-light") for seed in (0, 1)
    ]
    assert [cell.name for cell in cells if cell.method == "lora"] == [
        f"lora{point}-s{seed}" for point in ("", "-x5", "-light") for seed in (0, 1)
    ]
    assert len(cells) == 2 * sum(axes.count() for axes in params.grid.methods.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_starts_from_what_its_method_says(method: str) -> None:
    row = METHODS[method]
    cell = Cell(method=method, heads=4 if row.multi_head else 1, seed=3, pretrain_seed=7)
    stage, origin = cell.start
    assert (stage, origin) == cell.origin
    assert stage == row.start_stage
    assert (origin.method, origin.seed, origin.pretrain_cell) == (row.pretrain, 7, origin)


def test_a_cell_is_named_by_where_it_is_in_the_grid() -> None:
    cell = Cell(method="mhr_z", heads=8, variant="light", trial=2, seed=1)
    assert cell.name == "mhr_z-h8-light-t2-s1"
    assert cell.label == "mhr_z-h8-light-t2"
    assert Cell(method="lora", variant="light").label == "lora-light"
    with pytest.raises(ParamsError, match="unknown method 'mrh'; did you mean 'mhr'"):
        Cell(method="mrh")


@pytest.fixture
def two_heads(project_file: Path) -> Params:
    """A grid of two seeds in which mhr_z has two head counts, lora a variant and extra steps, poly a search."""
    text = project_file.read_text().replace(
        "  seeds: [0]", "  seeds: [5, 0]\n  pretrain_seed: 7\n  variants: {light: {pretrain: {targets: light}}}"
    )
    text = text.replace("mhr_z: {heads: [4]}", "mhr_z: {heads: [4, 2]}")
    text = text.replace("    lora:", "    lora: {variants: [plain, light], extra_steps: {plain: [3]}}")
    project_file.write_text(text.replace("    poly:", "    poly: {search: {lr: [0.1, 0.2]}}"))
    return load_params(project_file).params


@pytest.mark.parametrize(
    ("name", "seed", "called"),
    [
        ("mhr-h4-s0", None, "mhr-h4-s0"),
        ("mhr-h4", None, "mhr-h4-s5"),
        ("mhr h4", None, "mhr-h4-s5"),
        ("mhr", None, "mhr-h4-s5"),
        ("MHR", 0, "mhr-h4-s0"),
        ("mhr-h4", 9, "mhr-h4-s9"),
        ("mhr_z-h2", None, "mhr_z-h2-s5"),
        ("lora", None, "lora-s5"),
        ("lora-light", 0, "lora-light-s0"),
        ("lora-x3", None, "lora-x3-s5"),
        ("poly-t2-s0", None, "poly-t2-s0"),
        ("mhr-h4-s7", None, "mhr-h4-s7"),
        ("lora-s100", None, "lora-s100"),
        ("mhr-h2-light-s1", None, "mhr-h2-light-s1"),
        ("tfew", None, "tfew-s5"),
        ("mosa", 3, "mosa-s3"),
    ],
)
def test_a_cell_goes_by_its_name_or_a_part_of_it(two_heads: Params, name: str, seed: int | None, called: str) -> None:
    cell = cell_called(two_heads, name, seed)
    assert cell.name == called
    assert cell == next((each for each in grid_cells(two_heads) if each.name == called), cell)
    assert cell.pretrain_cell.seed == 7


def test_a_cell_of_a_search_has_its_settings(two_heads: Params) -> None:
    assert cell_called(two_heads, "poly-t2-s0").settings == (("lr", 0.2),)


@pytest.mark.parametrize(
    ("name", "seed", "said"),
    [
        ("mhr_z", None, "mhr_z can be mhr_z-h4, mhr_z-h2; name one of them"),
        ("lora-h8", None, "--heads 8: lora has one head"),
        ("poly", None, "poly can be poly-t1, poly-t2; name one of them"),
        ("mrh-h4", None, "unknown cell 'mrh-h4'; did you mean 'mhr-h4'?"),
        ("mhr-dark-s0", None, "unknown cell 'mhr-dark-s0'"),
        ("mhr-h0-s0", None, "unknown cell 'mhr-h0-s0'"),
        ("../mhr-h4", None, "unknown cell '../mhr-h4'"),
        ("poly-t9-s0", None, "unknown cell 'poly-t9-s0'"),
        ("mhr-h4-s0", 1, "--seed 1: the name mhr-h4-s0 has its seed; leave one out"),
    ],
)
def test_what_names_no_cell_or_several_is_rejected(two_heads: Params, name: str, seed: int | None, said: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(said)):
        cell_called(two_heads, name, seed)


def test_axes_that_are_left_out_are_the_grids_first(two_heads: Params) -> None:
    assert cell_of(two_heads, "mhr_z").name == "mhr_z-h4-s5"
    assert cell_of(two_heads, "mhr_z", heads=2, variant="light", seed=0).name == "mhr_z-h2-light-s0"


def test_what_the_cells_of_all_seeds_are_called() -> None:
    assert [label_of("lora"), label_of("mhr", 8), label_of("mhr", 8, "light")] == ["lora", "mhr-h8", "mhr-h8-light"]
    assert [method_of(label) for label in ("lora", "mhr_z-h8", "lora (light)", "mhr-h8-light")] == [
        "lora",
        "mhr_z",
        "lora",
        "mhr",
    ]


def test_a_label_goes_by_its_method_where_it_is_the_only_one() -> None:
    labels = ["lora", "lora-light", "mhr-h8", "mhr_z-h8", "mhr_z-h64"]
    meant = {name: label_called(name, labels) for name in ("lora", "mhr", "mhr h8", "MHR-H8", "mhr_z-h64", "poly", "mhr-h2")}
    assert list(meant.values()) == ["lora", "mhr-h8", "mhr-h8", "mhr-h8", "mhr_z-h64", None, None]
    with pytest.raises(ParamsError, match="mhr_z can be mhr_z-h8, mhr_z-h64; name one of them"):
        label_called("mhr_z", labels)


def stacked(path: Path, *sets: str, method: str = "mhr_mu", seed: int | None = None) -> list[str | None]:
    """What lies under a cell in each stage, by the settings of all methods."""
    settings = load_params(path, sets)
    resolved = resolve_cell(settings, cell_of(settings.params, method, seed=seed))
    outputs = [resolved.under(stage) for stage in LOWERED]
    return [f"{output[0]}/{output[1].name}" if output else None for output in outputs]


def test_a_stage_takes_what_lay_under_the_one_before(project_file: Path) -> None:
    assert stacked(project_file) == [None, None, None]
    assert stacked(project_file, "pretrain.under=lora") == ["pretrain/lora-s0"] * 3
    assert stacked(project_file, "adapt.under=poly_mu", seed=3) == [None, "average/poly-s3", "average/poly-s3"]
    sets = ["pretrain.under=lora-s7", "evaluate.under=mhr_mu-h4-light-s1"]
    assert stacked(project_file, *sets) == ["pretrain/lora-s7", "pretrain/lora-s7", "average/mhr-h4-light-s1"]
    assert stacked(project_file, "grid.pretrain_seed=5", "adapt.under=lora", seed=1) == [None, *["pretrain/lora-s5"] * 2]


@pytest.mark.parametrize(
    ("method", "sets", "said"),
    [
        ("lora", "adapt.under=mhr_mu", "adapt.under mhr_mu: name its heads too, as in mhr_mu-h8"),
        ("lora", "pretrain.under=ia3", "pretrain.under ia3: ia3 is no single LoRA; name a cell of lora, poly_mu, mhr_mu or"),
        ("lora", "pretrain.under=adapter_soup", "adapter_soup is no single LoRA"),
        ("lora", "adapt.under=../lora", "no name of a cell, such as lora-s0"),
        ("ia3", "adapt.under=lora", "adapt.under lora: ia3 cannot be trained on another adapter"),
        ("adapter_soup", "pretrain.under=lora", "pretrain.under lora: adapter_soup cannot be trained on another adapter"),
        ("mhr", "pretrain.pool=lora", "pretrain.pool lora: lora pre-trains no pool; name a cell of adapter_soup"),
        ("lora", "pretrain.pool=adapter_soup", "pretrain.pool adapter_soup: lora has no skills that could be of a pool"),
    ],
)
def test_what_cannot_lie_under_a_cell_is_rejected(project_file: Path, method: str, sets: str, said: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(f"params.yaml: cell {method}-")) as raised:
        stacked(project_file, sets, method=method)
    assert said in str(raised.value)


def test_extra_steps_go_on_from_skills_that_there_are(project_file: Path) -> None:
    settings = load_params(project_file, ["grid.methods.mhr.pretrain.pool=adapter_soup-s9"])
    cell = cell_of(settings.params, "mhr_mu")
    output = resolve_cell(settings, cell).pool()
    assert output is not None
    assert (output[0], output[1].name) == ("pretrain", "adapter_soup-s9")
    assert resolve_cell(settings, cell.model_copy(update={"extra_steps": 3})).pool() is None


def test_a_variant_of_adaptation_alone_shares_the_plain_pre_training(project_file: Path) -> None:
    text = project_file.read_text().replace(
        "    poly:\n", "    poly: {variants: [plain, slow, light]}\n    poly_mu: {variants: [slow]}\n"
    )
    variants = "  variants: {slow: {adapt: {lr: 0.001}}, light: {pretrain: {targets: light}}}\n"
    project_file.write_text(text.replace("  methods:\n", f"{variants}  methods:\n"))
    params = load_params(project_file).params
    cells = {cell.name: cell for cell in grid_cells(params) if cell.method in ("poly", "poly_mu")}
    assert {name: cell.pretrain_cell.name for name, cell in cells.items()} == {
        "poly-s0": "poly-s0",
        "poly-slow-s0": "poly-s0",
        "poly-light-s0": "poly-light-s0",
        "poly_mu-slow-s0": "poly-s0",
    }
    stage, start = cells["poly_mu-slow-s0"].start
    assert (stage, start.name) == ("average", "poly-s0")
    assert cell_of(params, "poly", variant="slow").pretrain_cell.name == "poly-s0"
    assert "pretrain_variant" not in cells["poly-light-s0"].model_dump()
