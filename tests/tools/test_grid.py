"""The expansion of the grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError
from mhrctl.tools.grid import differences, expand, read_cell, sync


def test_sync_writes_what_changed_and_removes_what_left(project: Path) -> None:
    where = Project(project)
    assert len(sync(load_params(where.params), where)) == 8
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


def test_a_cell_outside_the_grid_is_answered(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no such cell; add it to `grid`"):
        read_cell(Project(project), "mhr-h9-s0")
