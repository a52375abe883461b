"""The state of a cell is what its commands would say: run, or nothing to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import cell_called
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.tools.states import State, states_of
from tests.conftest import Run


def states(project: Path, name: str, threads: int | None = 1) -> dict[str, State]:
    settings = load_params(project / "params.yaml")
    return states_of(resolve_cell(settings, cell_called(settings.params, name)), Project(project), threads=threads)


def changed(*stages: str, of: tuple[str, ...] = ("pretrain", "average", "adapt", "evaluate")) -> dict[str, State]:
    return {stage: "out of date" if stage in stages else "up to date" for stage in of}


def test_what_is_missing_or_outdated_is_what_would_run(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert states(copy, "mhr_mu") == changed()
    shutil.rmtree(copy / "data/average/mhr-h4-s0")
    assert states(copy, "mhr_mu") == changed("adapt", "evaluate") | {"average": "missing"}
    assert run("average", "mhr", "-C", copy) == 0
    assert states(copy, "mhr_mu") == changed()
    (copy / "data/metrics/evaluate/mhr_mu-h4-s0.json").write_text("{}")
    assert states(copy, "mhr_mu") == changed("evaluate")
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("shots: 3", "shots: 2"))
    assert states(copy, "mhr_mu") == changed("adapt", "evaluate")
    assert states(copy, "mhr") == changed("adapt", of=("pretrain", "adapt", "evaluate"))
    capfd.readouterr()
    assert run("adapt", "mhr", "-C", copy) == 0
    assert run("evaluate", "mhr", "-C", copy) == 0
    assert "is up to date" not in capfd.readouterr().err
    assert states(copy, "mhr") == changed(of=("pretrain", "adapt", "evaluate"))
    shutil.rmtree(copy / "data/prepare")
    assert states(copy, "mhr") == dict.fromkeys(("pretrain", "adapt", "evaluate"), "out of date")


def test_another_number_of_threads_is_another_output(walked: Path) -> None:
    of = ("pretrain", "adapt", "evaluate")
    assert states(walked, "lora", threads=2) == changed(*of, of=of)
    assert states(walked, "lora", threads=None) == changed(of=of)


def test_the_stages_of_a_cell_are_those_that_it_has(walked_all: Path) -> None:
    assert states(walked_all, "lora-x3-s0") == {"pretrain": "up to date", "evaluate": "up to date"}
    assert states(walked_all, "mhr_mu-h4-x3-s0") == {"pretrain": "up to date", "evaluate": "up to date"}
    assert set(states(walked_all, "adapter_soup").values()) == {"up to date"}
    assert states(walked_all, "mhr-h2-s0") == dict.fromkeys(("pretrain", "adapt", "evaluate"), "missing")
