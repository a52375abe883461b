"""Options that several commands share: which cell they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.cli.options import CellChoice, chosen_cell, named_cell, output_of
from mhrctl.config.resolve import load_params
from mhrctl.errors import ParamsError


def test_what_options_leave_open_is_the_grids_first(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [5, 0]\n  pretrain_seed: 7"))
    settings = load_params(params)
    cell = named_cell(settings, CellChoice("mhr"))
    assert (cell.name, cell.pretrain_cell.name) == ("mhr-h4-s5", "mhr-h4-s7")
    assert named_cell(settings, CellChoice("mhr", 2, "light", 0)).name == "mhr-h2-light-s0"
    assert named_cell(settings, CellChoice("lora", extra_steps=3)).name == "lora-x3-s5"
    with pytest.raises(ParamsError, match="name the cell with --method"):
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
    with pytest.raises(ParamsError, match="--cell stands for all settings of a cell"):
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
