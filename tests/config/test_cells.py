"""Cells: their names, and where each starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.cells import Cell, grid_cells
from mhrctl.config.methods import METHODS
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
    assert cell.options == "--method mhr_mu --heads 4 --extra-steps 6 --seed 0"
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
    assert cell.options == "--cell mhr_z-h8-light-t2-s1"
    assert Cell(method="lora", variant="light").options == "--method lora --variant light --seed 0"
    with pytest.raises(ParamsError, match="unknown method 'mrh'; did you mean 'mhr'"):
        Cell(method="mrh")
