"""params.yaml: what is accepted, and how what is not is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mhrctl.config.cells import Cell, grid_cells
from mhrctl.config.params import Closed, Params
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.errors import ParamsError

ROOT = Path(__file__).parents[2]


def edited(project: Path, old: str, new: str) -> Path:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  skills: 2", "  skils: 2", r"params.yaml:12: pretrain.skils: unknown key 'skils'; did you mean 'skills'\? \(known:"),
        ("  skills: 2", "  skills: two", r"params.yaml:12: pretrain.skills: Input should be a valid integer \(got 'two'\)"),
        ("  skills: 2", "  skills: 0", r"params.yaml:12: pretrain.skills: Input should be greater than 0 \(got 0\)"),
        (
            "source: jsonl",
            "source: web",
            r"params.yaml:2: prepare.source: Input should be 'compositional', 'superni', 't0', 'jsonl' or 'hub'",
        ),
        (
            "  skills: 2",
            "  balance: tokens",
            r"params.yaml:11: pretrain: balance tokens needs a window of two or more micro-batches",
        ),
        ("  path: tasks", "", r"params.yaml:1: prepare: source jsonl needs `path`"),
        ("  shots: 3", "", r"params.yaml:20: adapt.shots: is missing"),
        ("    lora:", "    lara:", r"params.yaml:\d+: grid: unknown method 'lara'; did you mean 'lora'\?"),
        ("mhr: {heads: [4]}", "mhr:", r"grid: mhr needs `heads`"),
        ("    lora:", "    lora: {heads: [2]}", r"grid: lora has no `heads`"),
        ("mhr_z: {heads: [4]}", "mhr_z: {heads: [4], pretrain: {lr: 1}}", r"mhr_z shares the pre-training of mhr"),
        ("seeds: [0]", "seeds: [0, 0]", r"seeds occur twice"),
        ("seeds: [0]", "seeds: [0", r"params.yaml:3\d: not valid YAML"),
    ],
)
def test_mistakes_are_answered_with_file_line_and_key(project: Path, old: str, new: str, message: str) -> None:
    path = edited(project, old, new)
    with pytest.raises(ParamsError, match=message):
        load_params(path)


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no such file; run mhrctl in a project folder"):
        load_params(tmp_path / "params.yaml")


def test_set_overrides_and_is_named_when_wrong(project: Path) -> None:
    path = project / "params.yaml"
    assert load_params(path, ["pretrain.lr=1e-3", "adapt.select=loss"]).params.pretrain.lr == 0.001
    for text, message in (
        ("pretrain.lr=-1", r"--set: pretrain.lr: Input should be greater than 0"),
        ("pretrain.what=1", r"--set: pretrain.what: unknown key"),
        ("pretrain", r"--set pretrain: expected section.key=value"),
        ("pretrain.lr.x=1", r"--set pretrain.lr.x=1: lr is not a section|pretrain.lr"),
    ):
        with pytest.raises(ParamsError, match=message):
            load_params(path, [text])


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


def test_a_wrong_key_in_an_override_names_the_cell(project: Path) -> None:
    path = edited(project, "mhr_z: {heads: [4]}", "mhr_z: {heads: [4], adapt: {rate: 1}}")
    params = load_params(path)
    with pytest.raises(ParamsError, match=r"cell mhr_z-h4-s0, from grid.methods.mhr_z: adapt.rate: unknown key 'rate'"):
        resolve_cell(params, Cell(method="mhr_z", heads=4))


def test_names_of_cells() -> None:
    cell = Cell(method="mhr_z", heads=8, seed=2)
    assert (cell.name, cell.pretrain_cell.name) == ("mhr_z-h8-s2", "mhr-h8-s2")
    assert Cell(method="lora", seed=1).name == "lora-s1"
    with pytest.raises(ParamsError, match=r"--heads 8: lora has one head"):
        Cell(method="lora", heads=8)


def sections() -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []

    def walk(name: str, model: type[BaseModel]) -> None:
        for key, field in model.model_fields.items():
            found.append((name, key, field))
            if isinstance(field.annotation, type) and issubclass(field.annotation, Closed):
                walk(f"{name}.{key}", field.annotation)

    for name, section in Params.model_fields.items():
        if isinstance(section.annotation, type):
            walk(name, section.annotation)
    return found


@pytest.mark.parametrize(("section", "key", "field"), sections(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_param_is_described_and_read(section: str, key: str, field: Any) -> None:
    assert field.description, f"{section}.{key} has no description"
    source = "\n".join(path.read_text() for path in (ROOT / "mhrctl").rglob("*.py"))
    assert f".{key}" in source, f"{section}.{key} is read nowhere"
