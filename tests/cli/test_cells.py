"""Which cell a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.cli.cells import CellChoice, chosen_cell, named_cell, output_of
from mhrctl.cli.options import open_project
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import Settings, load_params
from mhrctl.errors import ParamsError


@pytest.fixture
def settings(project: Path) -> Settings:
    return open_project(project, ["grid.seeds=[5, 6]"], reads=["grid"])[1]


def test_a_cell_is_named_by_its_method_and_the_grids_first(settings: Settings) -> None:
    assert named_cell(settings, CellChoice("mhr")) == Cell(method="mhr", heads=4, seed=5)
    assert named_cell(settings, CellChoice("mhr", 8, seed=0)) == Cell(method="mhr", heads=8, seed=0)
    assert named_cell(settings, CellChoice("lora", extra_steps=3)) == Cell(method="lora", seed=5, extra_steps=3)


def test_a_cell_that_is_not_named_whole_is_refused(project: Path, settings: Settings) -> None:
    with pytest.raises(ParamsError, match=r"name the cell, such as mhr-h8-s0"):
        named_cell(settings, CellChoice())
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("    mhr: {heads: [4]}\n", ""))
    without = open_project(project, [])[1]
    with pytest.raises(ParamsError, match=r"--method mhr needs --heads"):
        named_cell(without, CellChoice("mhr"))


def test_outputs_stand_below_data_by_stage_and_cell(project: Path) -> None:
    where = Project(project)
    assert output_of(where, ("average", Cell(method="mhr", heads=4))) == project / "data/average/mhr-h4-s0"


def test_what_options_leave_open_is_the_grids_first(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [5, 0]\n  pretrain_seed: 7"))
    settings = load_params(params)
    cell = named_cell(settings, CellChoice("mhr"))
    assert (cell.name, cell.pretrain_cell.name) == ("mhr-h4-s5", "mhr-h4-s7")
    assert named_cell(settings, CellChoice("mhr", 2, "light", 0)).name == "mhr-h2-light-s0"
    assert named_cell(settings, CellChoice("lora", extra_steps=3)).name == "lora-x3-s5"
    by_variant = "variants: [plain, light], heads: {plain: [8, 4], light: [2]}"
    text = params.read_text().replace("mhr_z: {heads: [4]}", f"mhr_z: {{{by_variant}}}")
    params.write_text(text.replace("  seeds:", "  variants: {light: {pretrain: {targets: light}}}\n  seeds:"))
    other = load_params(params)
    assert [named_cell(other, CellChoice("mhr_z", variant=name)).heads for name in (None, "plain", "light")] == [8, 8, 2]
    with pytest.raises(ParamsError, match="--method mhr_z needs --heads"):
        named_cell(other, CellChoice("mhr_z", variant="block"))
    with pytest.raises(ParamsError, match="name the cell, such as mhr-h8-s0, or its --method"):
        named_cell(settings, CellChoice())


def test_heads_of_a_variant_are_those_of_its_pretraining(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("    mhr_z: {heads: [4]}\n", ""))
    assert named_cell(load_params(params), CellChoice("mhr_z")).heads == 4
    params.write_text(params.read_text().replace("    mhr: {heads: [4]}\n    mhr_mu: {heads: [4]}\n", ""))
    with pytest.raises(ParamsError, match="--method mhr_z needs --heads"):
        named_cell(load_params(params), CellChoice("mhr_z"))


@pytest.mark.parametrize(
    "choice",
    [
        CellChoice("lora", cell="lora-s0"),
        CellChoice(heads=4, cell="lora-s0"),
        CellChoice(variant="plain", cell="lora-s0"),
        CellChoice(seed=0, cell="lora-s0"),
        CellChoice(extra_steps=3, cell="lora-s0"),
    ],
)
def test_a_cell_by_name_goes_with_no_other_option(walked: Path, choice: CellChoice) -> None:
    with pytest.raises(ParamsError, match="--cell takes all settings from the cell's file"):
        chosen_cell(walked, choice, reads="adapt")


def test_a_cell_by_name_is_read_from_its_synced_file(walked: Path) -> None:
    where, params = chosen_cell(walked, CellChoice(cell="mhr_mu-h4-s0"), reads="adapt")
    assert (where, params.cell.name) == (Project(walked), "mhr_mu-h4-s0")
    assert output_of(where, params.cell.start) == walked / "data/average/mhr-h4-s0"
    for sets, recipe in ((["adapt.lr=1.0"], None), ([], "t0")):
        with pytest.raises(ParamsError, match=r"leave out .* --recipe and --set"):
            chosen_cell(walked, CellChoice(cell="lora-s0"), sets, recipe, reads="adapt")


def test_nothing_is_set_in_vain(project: Path) -> None:
    assert chosen_cell(project, CellChoice("lora"), ["adapt.lr=0.5"], reads="adapt")[1].adapt.lr == 0.5
    with pytest.raises(ParamsError, match=r"--set adapt.lr=0.5: this command reads the section `pretrain` only"):
        chosen_cell(project, CellChoice("lora"), ["adapt.lr=0.5"], reads="pretrain")
    with pytest.raises(ParamsError, match=r"--set adapt.routing_lr: lora does not read it; leave it out"):
        chosen_cell(project, CellChoice("lora"), ["adapt.routing_lr=0.5"], reads="adapt")
    of_poly = ["grid.methods.poly.adapt.lr=0.5"]
    assert chosen_cell(project, CellChoice("poly"), of_poly, reads="adapt")[1].adapt.lr == 0.5
    with pytest.raises(ParamsError, match=r"--set grid.methods.poly.adapt.lr=0.5: it has no effect on cell lora-s0"):
        chosen_cell(project, CellChoice("lora"), of_poly, reads="adapt")
    with pytest.raises(ParamsError, match=r"--set grid.seeds=\[3\]: it has no effect on cell lora-s1"):
        chosen_cell(project, CellChoice("lora", seed=1), ["grid.seeds=[3]"], reads="adapt")
    assert chosen_cell(project, CellChoice("lora"), ["grid.seeds=[3]"], reads="adapt")[1].cell.seed == 3


def test_heads_outside_the_grid_must_divide_the_layers(walked: Path) -> None:
    with pytest.raises(ParamsError, match=r"cell mhr-h3-s0: 3 heads do not divide layer .*; all layers can have 1, 2, 4, "):
        chosen_cell(walked, CellChoice("mhr", 3), reads="adapt")
    assert chosen_cell(walked, CellChoice("mhr", 2), reads="adapt")[1].cell == Cell(method="mhr", heads=2)
