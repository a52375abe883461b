"""The expansion of the grid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.errors import ArtifactError, MhrctlError, ParamsError
from mhrctl.projects.templates import dvc_yaml
from mhrctl.tools.grid import differences, expand, named_outputs, read_bare, read_cell, require_in_step, sync
from tests.config.mutations import complaint_of


def test_sync_writes_what_changed_and_removes_what_left(project: Path) -> None:
    where = Project(project)
    assert len(sync(load_params(where.params), where)) == 9
    assert sync(load_params(where.params), where) == []
    text = where.params.read_text()
    where.params.write_text(text.replace("    poly:\n", "").replace("heads: [4]", "heads: [4, 8]"))
    params = load_params(where.params)
    changes = sync(params, where)
    assert [line for line in changes if line.startswith("removed")] == ["removed  data/cells/poly-s0.json"]
    assert {line.split("/")[-1] for line in changes if line.startswith("new")} == {
        "mhr-h8-s0.json",
        "mhr_z-h8-s0.json",
        "mhr_mu-h8-s0.json",
    }
    assert differences(expand(params, where), where) == []


def test_variants_share_a_pretraining_cell(project: Path) -> None:
    where = Project(project)
    where.params.write_text(where.params.read_text().replace("    mhr: {heads: [4]}\n", ""))
    sync(load_params(where.params), where)
    cells = YAML(typ="safe").load(where.cell_index)["cells"]
    assert list(cells["pretrain"]) == ["lora-s0", "poly-s0", "mhr-h4-s0"]
    assert list(cells["average"]) == ["mhr-h4-s0"]
    assert cells["adapt"]["mhr_z-h4-s0"] == {"start": "pretrain/mhr-h4-s0"}
    assert cells["adapt"]["mhr_mu-h4-s0"] == {"start": "average/mhr-h4-s0"}
    assert "mhr-h4-s0" not in cells["adapt"]
    assert read_cell(where, "mhr-h4-s0").cell.name == "mhr-h4-s0"


def test_one_pretraining_can_serve_all_seeds(project: Path) -> None:
    where = Project(project)
    where.params.write_text(where.params.read_text().replace("seeds: [0]", "seeds: [1, 2]\n  pretrain_seed: 7"))
    sync(load_params(where.params), where)
    cells = YAML(typ="safe").load(where.cell_index)["cells"]
    assert list(cells["pretrain"]) == ["lora-s7", "poly-s7", "mhr-h4-s7"]
    assert cells["adapt"]["mhr_z-h4-s2"] == {"start": "pretrain/mhr-h4-s7"}
    assert cells["adapt"]["mhr_mu-h4-s1"] == {"start": "average/mhr-h4-s7"}


def test_adaptations_that_ask_no_index_do_not_wait_for_it(project: Path) -> None:
    where = Project(project)
    rows = "    adapter_soup: {adapt: {soup_by: loss}}\n"
    where.params.write_text(where.params.read_text() + rows)
    sync(load_params(where.params), where)
    cells = YAML(typ="safe").load(where.cell_index)["cells"]
    assert cells["adapt"]["adapter_soup-s0"] == {"start": "pretrain/adapter_soup-s0"}
    assert cells["index"] == cells["adapt_soup"] == {}
    where.params.write_text(where.params.read_text() + "    ties:\n    lorauter:\n")
    sync(load_params(where.params), where)
    cells = YAML(typ="safe").load(where.cell_index)["cells"]
    assert "adapter_soup-s0" in cells["adapt"]
    assert [*cells["adapt_soup"]] == ["ties-s0", "lorauter-s0"]
    assert cells["index"] == {"tasks": {}}


def test_a_cell_outside_the_grid_is_rejected(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no such cell; add it to `grid`"):
        read_cell(Project(project), "mhr-h9-s0")


def test_a_grid_that_is_not_in_step_is_rejected(project: Path) -> None:
    where = Project(project)
    with pytest.raises(ArtifactError, match=r"data/cells: is not written yet; run `mhrctl grid sync`"):
        require_in_step(load_params(where.params), where)
    sync(load_params(where.params), where)
    require_in_step(load_params(where.params), where)
    where.cell_file("lora-s0").write_text("{}")
    with pytest.raises(ArtifactError, match=r"data/cells: params.yaml has changed \(1 file\); run `mhrctl grid sync`"):
        require_in_step(load_params(where.params), where)


def test_a_cell_and_the_bare_backbone_are_read_as_dvc_sees_them(project: Path) -> None:
    where = Project(project)
    with pytest.raises(ArtifactError, match=r"backbone.json: is missing; run `mhrctl grid sync`"):
        read_bare(where)
    params = load_params(where.params)
    sync(params, where)
    assert read_bare(where) == params.params.evaluate
    assert read_cell(where, "mhr_z-h4-s0").adapt == resolve_cell(params, Cell(method="mhr_z", heads=4)).adapt
    where.cell_file("lora-s0").write_text('{"cell": {}, "x": 1}')
    with pytest.raises(ArtifactError, match=r"lora-s0.json: not as this version writes it; run `mhrctl grid sync`"):
        read_cell(where, "lora-s0")


def test_generated_files_hold_what_is_not_at_its_default(project: Path) -> None:
    """So that a setting that a later version adds reruns nothing."""
    where = Project(project)
    files = expand(load_params(where.params), where)
    cell = json.loads(files[where.cell_file("lora-s0")])
    assert cell["pretrain"] == {"skills": 2, "steps": 4, "batch_size": 4, "log_every": 2}
    assert json.loads(files[where.cell_file(BACKBONE)]) == {"evaluate": {"max_new_tokens": 4}}
    assert json.loads(files[where.stage_versions]) == STAGE_VERSIONS


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "../../params",
        "/etc/passwd",
        "",
        ".",
        "..",
        "a/b",
        "lora",
        "-s0",
        ".lora-s0",
        "lora-s0\n",
        "lora-s\u0663",
        "a\0b",
        "x" * 5000,
    ],
)
def test_a_name_that_is_no_cells_leads_nowhere(project: Path, name: str) -> None:
    with pytest.raises(ParamsError, match=r"^--cell '.*': no name of a cell, such as mhr-h8-s0") as caught:
        read_cell(Project(project), name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.text())
def test_any_name_is_a_cell_or_an_error(name: str) -> None:
    assert complaint_of(lambda: read_cell(Project(Path("nowhere")), name), MhrctlError)


def cell_text(**changes: object) -> str:
    sections = {
        "pretrain": {"steps": 4, "batch_size": 4},
        "adapt": {"shots": 3, "steps": 4, "batch_size": 2, "evaluate_every": 2},
    }
    return json.dumps({"cell": {"method": "lora"} | changes, **sections, "evaluate": {}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (cell_text(seed=7), r"is of the cell lora-s7 by what it says; run `mhrctl grid sync`"),
        (cell_text(method="poly"), r"is of the cell poly-s0 by what it says; run `mhrctl grid sync`"),
        (cell_text(variant="../../x"), r"not as this version writes it; run `mhrctl grid sync` \(--variant '../../x': no name"),
        (cell_text(method="nosuch"), r"not as this version writes it; run `mhrctl grid sync` \(unknown method 'nosuch'"),
        (cell_text(seed=float("nan")), r"not as this version writes it; run `mhrctl grid sync` \("),
        (cell_text(seed=10**23), r"not as this version writes it; run `mhrctl grid sync` \("),
        (
            cell_text().replace('"batch_size": 4', '"batch_size": 4, "lr": 1e400'),
            r"not as this version writes it; run `mhrctl grid sync`",
        ),
        ("[" * 100_000, r"not as this version writes it; run `mhrctl grid sync`"),
        ("", r"not as this version writes it; run `mhrctl grid sync`"),
        (b"\xff\xfe\0", r"not as this version writes it; run `mhrctl grid sync`"),
    ],
)
def test_a_broken_or_foreign_cell_is_one_line_and_sync_mends_it(project: Path, content: str | bytes, said: str) -> None:
    where = Project(project)
    settings = load_params(where.params)
    sync(settings, where)
    path = where.cell_file("lora-s0")
    right = path.read_text()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtifactError, match=rf"^{path}: {said}") as caught:
        read_cell(where, "lora-s0")
    assert "\n" not in str(caught.value)
    assert differences(expand(settings, where), where) == ["changed  data/cells/lora-s0.json"]
    assert sync(settings, where) == ["changed  data/cells/lora-s0.json"]
    assert path.read_text() == right


def test_a_pipe_in_place_of_a_cell_is_not_waited_for(project: Path) -> None:
    where = Project(project)
    path = where.cell_file("lora-s0")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match=r"is no ordinary file"):
        read_cell(where, "lora-s0")
    path.rename(where.cell_file(BACKBONE))
    with pytest.raises(ArtifactError, match=r"is no ordinary file"):
        read_bare(where)


def test_files_that_are_not_of_cells_are_left_alone(project: Path) -> None:
    where = Project(project)
    settings = load_params(where.params)
    sync(settings, where)
    for name in ("notes.json", ".hidden-s0.json", "my-notes.txt", "LORA-s1.json"):
        (where.cell_index.parent / name).write_text("mine")
    where.cell_file("gone-s3").write_text("{}")
    assert sync(settings, where) == ["removed  data/cells/gone-s3.json"]
    assert (where.cell_index.parent / "notes.json").read_text() == "mine"
    assert (where.cell_index.parent / ".hidden-s0.json").exists()


def test_what_params_may_leave_out_is_written_for_dvc(project: Path) -> None:
    where = Project(project)
    sections = json.loads(expand(load_params(where.params), where)[where.optional_sections])
    assert sections == {"recipe": None, "index": {"examples": 9}, "report": {}}
    where.params.write_text(where.params.read_text().replace("recipe: null", "recipe: t0").replace("[1, 2]", "[4]"))
    sections = json.loads(expand(load_params(where.params), where)[where.optional_sections])
    assert sections == {"recipe": "t0", "index": {"examples": 9}, "report": {"tables": [4]}}


def test_cells_that_read_outputs_which_settings_name_are_stages_of_their_own(project: Path) -> None:
    """And a grid without any has the lists that it always had."""
    where = Project(project)
    before = expand(load_params(where.params), where)[where.cell_index]
    text = where.params.read_text().replace("    poly:\n", "    poly: {pretrain: {pool: adapter_soup-s9}}\n    poly_mu:\n")
    where.params.write_text(text.replace("mhr_z: {heads: [4]}", "mhr_z: {heads: [4], adapt: {under: poly_mu}}"))
    settings = load_params(where.params)
    cells = YAML(typ="safe").load(expand(settings, where)[where.cell_index])["cells"]
    assert not any(stage.endswith(("_over", "_pool")) for stage in YAML(typ="safe").load(before)["cells"])
    assert cells["pretrain_pool"] == {"poly-s0": {"pool": "pretrain/adapter_soup-s9"}}
    assert list(cells["pretrain"]) == ["lora-s0", "mhr-h4-s0"]
    over = {"mhr_z-h4-s0": {"start": "pretrain/mhr-h4-s0", "under": "average/poly-s0"}}
    assert (cells["adapt_over"], cells["evaluate_over"]) == (over, over)
    assert "pretrain_over" not in cells
    assert {"mhr_z-h4-s0"}.isdisjoint({**cells["adapt"], **cells["evaluate"]})
    stages = YAML(typ="safe").load(dvc_yaml(settings.params))["stages"]
    assert {name for name in stages if name.endswith(("-over", "-pool"))} == {"pretrain-pool", "adapt-over", "evaluate-over"}
    assert "data/${item.under}" in stages["adapt-over"]["do"]["deps"]
    assert stages["pretrain-pool"]["foreach"] == "${cells.pretrain_pool}"
    assert "data/${item.pool}" in stages["pretrain-pool"]["do"]["deps"]
    named = [(stage, cell.name) for stage, cell in named_outputs(settings)]
    assert {*named} == {("average", "poly-s0"), ("pretrain", "adapter_soup-s9")}
    plain = YAML(typ="safe").load(dvc_yaml(load_params(where.params, ["grid.methods={lora: {}}"]).params))["stages"]
    assert not any("item.under" in str(stage) or "item.pool" in str(stage) for stage in plain.values())
