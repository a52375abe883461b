"""`mhrctl grid`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def test_sync_names_what_changed_but_not_hundreds(project: Path, run: Run, capfd: Capture) -> None:
    assert run("grid", "sync", "-C", project) == 0
    assert "9 files written" in capfd.readouterr().err
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", f"seeds: {list(range(40))}"))
    assert run("grid", "sync", "--check", "-C", project) == 2
    said = capfd.readouterr().err
    assert "and 176 more" in said  # 39 seeds of five cells and the index, less the 20 that are named
    assert "not in step with params.yaml and this mhrctl; run `mhrctl grid sync`" in said
    assert len(said.splitlines()) == 22


def test_prune_lists_before_it_removes(copy: Path, run: Run, capfd: Capture) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    poly:\n", ""))
    assert run("grid", "prune", "-C", copy) == 2
    assert "run `mhrctl grid sync` first" in capfd.readouterr().err
    assert run("grid", "sync", "-C", copy) == 0
    assert "1 cells that are not in the grid have outputs; `mhrctl grid prune` lists them" in capfd.readouterr().err
    assert run("grid", "prune", "-C", copy) == 0
    said = capfd.readouterr()
    assert "  pretrain/poly-s0\n" in said.out
    assert "`mhrctl grid prune --yes` removes them" in said.err
    assert (copy / "data/pretrain/poly-s0/card.json").exists()
    assert run("grid", "prune", "--yes", "-C", copy) == 0
    assert not list(copy.glob("data/**/*poly-s0*"))
    capfd.readouterr()
    assert run("grid", "prune", "--yes", "-C", copy) == 0
    assert "nothing to prune" in capfd.readouterr().err
    assert run("report", "-C", copy) == 0
