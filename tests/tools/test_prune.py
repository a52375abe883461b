"""What cells that left the grid have left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell, grid_cells
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError
from mhrctl.tools.prune import find_leftovers, prune, set_apart

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
    made = Project(project)
    for path in (
        made.output("pretrain", "mhr-h4-s0") / "card.json",  # which mhr_z adapts from
        made.output("average", "mhr-h4-s0") / "card.json",
        made.output("adapt", "mhr-h4-s0") / "card.json",
        made.output("adapt", "lora-s0") / "card.json",
        made.output("adapt", "poly-s9") / "card.json",
        made.output("evaluate", "backbone") / "card.json",
        made.scores("backbone"),
        made.scores("poly-s9"),
        made.harness("poly-s9"),
        made.harness("lora-s0"),
        made.harness("backbone"),
        made.training_log("lora-s0"),
        made.training_log("poly-x3-s0"),
        made.alignment("poly-s9-start"),
        made.alignment("lora-s0-checkpoint"),
        made.run_log("adapt", "poly-s9"),
        made.run_log("adapt", "lora-s0"),
        made.run_log("prepare"),
        made.scratch / "pretrain-poly-s9-part32.safetensors",
        made.scratch / "pretrain-poly-s9.previous.safetensors",
        made.scratch / "pretrain-poly-s9.safetensors.1.damaged",
        made.scratch / "pretrain-lora-s0.safetensors",
        made.scratch / "pretrain-lora-s0.previous.safetensors.2.damaged",
        made.output("adapt", "notes") / "of_mine.txt",
        made.output("prepare") / "card.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1234")
    (made.output("adapt") / ".gitignore").write_text("/lora-s0\n/poly-s9\n/mhr-h4-s0\n")
    (made.root / "dvc.lock").write_text(LOCK)
    return made


def test_only_what_no_cell_needs_is_listed(where: Project) -> None:
    left = find_leftovers(grid_cells(load_params(where.params).params), where)
    assert left.cells == ["adapter_soup-s0", "mhr-h4-s0", "poly-s9", "poly-x3-s0"]
    assert {cell: [path.relative_to(where.data).as_posix() for path in paths] for cell, paths in left.paths.items()} == {
        "poly-x3-s0": ["metrics/pretrain/poly-x3-s0.csv"],
        "mhr-h4-s0": ["adapt/mhr-h4-s0"],
        "poly-s9": [
            "adapt/poly-s9",
            "log/adapt-poly-s9.json",
            "metrics/evaluate/poly-s9.json",
            "metrics/harness/poly-s9.json",
            "metrics/align/poly-s9-start.json",
            "scratch/pretrain-poly-s9-part32.safetensors",
            "scratch/pretrain-poly-s9.previous.safetensors",
            "scratch/pretrain-poly-s9.safetensors.1.damaged",
        ],
    }
    assert left.entries == ["adapt@poly-s9", "adapt-soup@adapter_soup-s0"]
    assert left.entries_of("poly-s9") == ["adapt@poly-s9"]
    assert left.entries_of("mhr-h4-s0") == []
    assert left.size("poly-s9") == 8 * 4
    assert left.size("adapter_soup-s0") == 0


def test_what_settings_name_is_needed(where: Project) -> None:
    cells = grid_cells(load_params(where.params).params)
    assert "poly-s9" in find_leftovers(cells, where).cells
    output = where.output("pretrain", "poly-s9")
    output.mkdir(parents=True)
    left = find_leftovers(cells, where, [("pretrain", Cell(method="poly", seed=9))])
    assert output not in left.paths["poly-s9"]
    assert where.output("adapt", "poly-s9") in left.paths["poly-s9"]


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
        "pretrain-poly-s9.previous.safetensors",
        "pretrain-poly-s9.safetensors.1.damaged",
    }
    assert {path.parent.name for path in gone if path.name == "card.json"} == {"poly-s9", "mhr-h4-s0"}
    assert (where.output("adapt") / ".gitignore").read_text() == "/lora-s0\n"
    assert find_leftovers(cells, where).cells == []


def test_entries_leave_the_lock_file_and_the_others_stay_as_they_are(where: Project) -> None:
    Repo.init(str(where.root), no_scm=True)
    (where.root / "dvc.yaml").write_text("stages: {}\n")
    prune(find_leftovers(grid_cells(load_params(where.params).params), where), where)
    assert (where.root / "dvc.lock").read_text() == LOCK.replace(
        """\
  adapt@poly-s9:
    cmd: mhrctl adapt --cell poly-s9
  adapt-soup@adapter_soup-s0:
    cmd: mhrctl adapt --cell adapter_soup-s0
""",
        "",
    )


def test_a_lock_file_that_dvc_holds_is_left_alone(where: Project) -> None:
    left = find_leftovers(grid_cells(load_params(where.params).params), where)  # of a folder that is no DVC project
    with pytest.raises(ArtifactError, match=r"dvc.lock: cannot be changed now: "):
        prune(left, where)
    assert (where.root / "dvc.lock").read_text() == LOCK
    assert where.output("adapt", "poly-s9").exists()


def test_a_folder_with_a_file_of_the_user_s_is_left_alone(where: Project) -> None:
    mine = where.output("adapt", "poly-s9") / "notes.txt"
    mine.write_text("mine")
    left = find_leftovers(grid_cells(load_params(where.params).params), where)
    before = {path for path in where.root.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match=r"poly-s9: holds notes\.txt, which no stage wrote; move it away first"):
        prune(left, where)
    assert {path for path in where.root.rglob("*") if path.is_file()} == before


def test_what_no_cache_has_is_set_apart(where: Project) -> None:
    cells = grid_cells(load_params(where.params).params)
    Repo.init(str(where.root), no_scm=True).close()
    assert set_apart(find_leftovers(cells, where), where)[1].cells == ["mhr-h4-s0", "poly-s9"]  # no hash in dvc.lock
    file, folder = "ab" + "1" * 30, "cd" + "2" * 30 + ".dir"
    out = f"    outs:\n    - path: data/adapt/poly-s9\n      hash: md5\n      md5: {folder}\n      size: 4\n      nfiles: 1\n"
    entry = "    cmd: mhrctl adapt --cell poly-s9\n"
    (where.root / "dvc.lock").write_text(LOCK.replace(entry, entry + out))
    objects = where.root / ".dvc/cache/files/md5"
    for name, text in ((folder, f'[{{"md5": "{file}", "relpath": "card.json"}}]'), (file, "1234")):
        assert set_apart(find_leftovers(cells, where), where)[1].cells == ["mhr-h4-s0", "poly-s9"]  # nor all of it in the cache
        (objects / name[:2]).mkdir(parents=True)
        (objects / name[:2] / name[2:]).write_text(text)
    left, by_hand = set_apart(find_leftovers(cells, where), where)
    assert (left.cells, by_hand.cells) == (["adapter_soup-s0", "poly-s9", "poly-x3-s0"], ["mhr-h4-s0"])
    assert (left.entries, by_hand.entries) == (["adapt@poly-s9", "adapt-soup@adapter_soup-s0"], [])
