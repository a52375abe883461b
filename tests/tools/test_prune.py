"""What cells that left the grid have left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params
from mhrctl.tools.prune import find_leftovers, prune

LOCK = """\
schema: '2.0'
stages:
  prepare:
    cmd: mhrctl prepare
  adapt@lora-s0:
    cmd: mhrctl adapt --cell lora-s0
  adapt@poly-s9:
    cmd: mhrctl adapt --cell poly-s9
  adapt-soup@adapter_soup-s0:
    cmd: mhrctl adapt --cell adapter_soup-s0
  average@mhr-h4-s0:
    cmd: mhrctl average --cell mhr-h4-s0
  somebody-elses@poly-s9:
    cmd: 'true'
"""


@pytest.fixture
def where(project: Path) -> Project:
    """A project of the toy grid without mhr itself, with outputs of cells in and out of the grid."""
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("    mhr: {heads: [4]}\n", ""))
    found = Project(project)
    for path in (
        found.output("pretrain", "mhr-h4-s0") / "card.json",  # which mhr_z adapts from
        found.output("average", "mhr-h4-s0") / "card.json",
        found.output("adapt", "mhr-h4-s0") / "card.json",
        found.output("adapt", "lora-s0") / "card.json",
        found.output("adapt", "poly-s9") / "card.json",
        found.output("evaluate", "backbone") / "card.json",
        found.scores("backbone"),
        found.scores("poly-s9"),
        found.training_log("lora-s0"),
        found.training_log("poly-x3-s0"),
        found.alignment("poly-s9-start"),
        found.alignment("lora-s0-checkpoint"),
        found.run_log("adapt", "poly-s9"),
        found.run_log("adapt", "lora-s0"),
        found.run_log("prepare"),
        found.scratch / "pretrain-poly-s9-part32.safetensors",
        found.scratch / "pretrain-lora-s0.safetensors",
        found.output("adapt", "notes") / "of_mine.txt",
        found.output("prepare") / "card.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1234")
    (found.output("adapt") / ".gitignore").write_text("/lora-s0\n/poly-s9\n/mhr-h4-s0\n")
    (found.root / "dvc.lock").write_text(LOCK)
    return found


def test_only_what_no_cell_needs_is_found(where: Project) -> None:
    left = find_leftovers(grid_cells(load_params(where.params).params), where)
    assert left.cells == ["adapter_soup-s0", "mhr-h4-s0", "poly-s9", "poly-x3-s0"]
    assert {cell: [path.relative_to(where.data).as_posix() for path in paths] for cell, paths in left.paths.items()} == {
        "poly-x3-s0": ["metrics/pretrain/poly-x3-s0.csv"],
        "mhr-h4-s0": ["adapt/mhr-h4-s0"],
        "poly-s9": [
            "adapt/poly-s9",
            "log/adapt-poly-s9.json",
            "metrics/evaluate/poly-s9.json",
            "metrics/align/poly-s9-start.json",
            "scratch/pretrain-poly-s9-part32.safetensors",
        ],
    }
    assert left.entries == ["adapt@poly-s9", "adapt-soup@adapter_soup-s0"]
    assert left.size("poly-s9") == 5 * 4


def test_pruning_removes_it_and_nothing_else(where: Project) -> None:
    cells = grid_cells(load_params(where.params).params)
    before = {path for path in where.root.rglob("*") if path.is_file()}
    (where.root / "dvc.lock").unlink()
    left = find_leftovers(cells, where)
    prune(left, where)
    gone = before - {path for path in where.root.rglob("*") if path.is_file()}
    assert {path.name for path in gone} == {
        "card.json",
        "dvc.lock",
        "poly-s9.json",
        "poly-s9-start.json",
        "adapt-poly-s9.json",
        "poly-x3-s0.csv",
        "pretrain-poly-s9-part32.safetensors",
    }
    assert {path.parent.name for path in gone if path.name == "card.json"} == {"poly-s9", "mhr-h4-s0"}
    assert (where.output("adapt") / ".gitignore").read_text() == "/lora-s0\n"
    assert find_leftovers(cells, where).cells == []
