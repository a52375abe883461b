"""`mhrctl evaluate --harness`: which cells, which tasks, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhrctl.cli.harness import names_of, require_harness
from mhrctl.errors import ParamsError
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def test_names_are_given_in_one_or_in_several_options() -> None:
    assert names_of(["arc, boolq", "arc", "piqa,"]) == ["arc", "boolq", "piqa"]
    assert names_of([]) == []


def test_options_of_the_harness_want_tasks(copy: Path, run: Run, capfd: Capture) -> None:
    require_harness(["arc"], {"--limit": 3})
    require_harness([], {"--limit": None, "--harness-tasks": []})
    with pytest.raises(ParamsError, match="--limit: is an option of --harness"):
        require_harness([], {"--harness-tasks": [], "--limit": 0})
    assert run("evaluate", "-m", "lora", "--adapter", "zero_shot", "-C", copy) == 2
    assert "--adapter: is an option of --harness, which names tasks" in capfd.readouterr().err
    assert run("evaluate", "-m", "lora", "--harness", "x", "--zero-shot", "-C", copy) == 2
    assert "--harness: takes no --zero-shot (but --adapter zero_shot)" in capfd.readouterr().err


def test_one_cell_at_a_time_is_evaluated(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("evaluate", "lora-s0", "poly-s0", "-C", copy) == 2
    assert "poly-s0: one cell at a time is evaluated, but for --harness; `mhrctl run` takes all" in capfd.readouterr().err
    assert run("evaluate", "lora-s0", "-C", copy) == 0
    assert "up to date" in capfd.readouterr().err


def test_exported_tasks_run_on_the_cells_that_are_named(copy: Path, run: Run, capfd: Capture) -> None:
    pytest.importorskip("lm_eval", reason="needs lm_eval (pip install 'mhrctl[harness]')")
    assert run("export", "--to", "harness", "--out", copy / "tasks-out", "-C", copy) == 0
    assert f"wrote 2 tasks of lm-evaluation-harness to {copy / 'tasks-out'}; its README.md" in capfd.readouterr().err
    common = ("--harness", "mhrctl", "--harness-tasks", copy / "tasks-out", "-C", copy)
    assert run("evaluate", "lora", "mhr-h4-s0", "backbone", *common) == 0
    said, where = capfd.readouterr().err, copy / "data/metrics/harness"
    for cell, adapter in (("lora-s0", "swap"), ("mhr-h4-s0", "swap"), ("backbone", "zero_shot")):
        assert f"{cell} mhrctl_swap ({adapter}): rouge_l " in said
        assert f"wrote {where / cell}.json" in said
        scores = json.loads((where / f"{cell}.json").read_text())["scores"]
        assert [score["task"] for score in scores] == ["mhrctl_swap", "mhrctl_twice"]
    assert " \N{PLUS-MINUS SIGN} " in said
    assert run("evaluate", "--method", "lora", "--adapter", "zero_shot", "--limit", "1", *common) == 0
    assert "lora-s0 mhrctl_swap (zero_shot): rouge_l " in capfd.readouterr().err
    assert run("report", "-C", copy) == 0  # which reads our scores alone
    assert "mhrctl_swap" not in capfd.readouterr().out
    assert run("report", "--harness", "-C", copy) == 0
    assert "mhrctl_swap" in capfd.readouterr().out


@pytest.mark.parametrize("wrong", [("-m", "lora"), ("--merge",), ("--stage", "average")])
def test_tasks_are_of_no_cell(copy: Path, run: Run, capfd: Capture, wrong: tuple[str, ...]) -> None:
    assert run("export", "--to", "harness", *wrong, "-C", copy) == 2
    assert "--to harness: writes the project's test tasks, which are of no cell" in capfd.readouterr().err
