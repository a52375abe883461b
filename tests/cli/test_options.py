"""Options that commands share, and when a stage has nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.provenance import Provenance
from mhrctl.cli.options import launched_processes, nothing_to_do
from mhrctl.config.methods import METHODS
from tests.cli.conftest import MADE, Capture, MadeAnew, rewrite
from tests.conftest import AVERAGED, CELLS, PRETRAINED, Run

ALONE = """\
import json, sys
from mhrctl.cli.app import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["mhrctl", *command]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
sys.exit(", ".join({"torch", "transformers", "datasets", "accelerate", "pyarrow", "numpy"} & set(sys.modules)) or 0)
"""
"""Runs commands in a process of their own, and names what they have imported that takes long."""
EVERY = [
    *(["prepare"], ["backbone"], ["index"], ["evaluate", "-m", "backbone"]),
    *(["pretrain", "-m", name] for name in (*CELLS[:3], *PRETRAINED)),
    *(["pretrain", "-m", name, "--extra-steps", "3"] for name in ("lora", "mhr_mu")),
    *(["average", "-m", name] for name in ("mhr", *AVERAGED)),
    *([stage, "-m", name] for name in METHODS for stage in ("adapt", "evaluate")),
    *(["evaluate", "-m", name, "--extra-steps", "3"] for name in ("lora", "mhr_mu")),
]
"""The commands that have made a walked project, but for a variant's."""


def states(project: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in project.rglob("*") if path.is_file()}


def test_a_stage_with_nothing_to_do_says_so_touches_nothing_and_imports_nothing_heavy(walked_all: Path) -> None:
    before = states(walked_all)
    commands = [[*command, "-C", str(walked_all)] for command in EVERY]
    arguments = [sys.executable, "-c", ALONE, json.dumps(commands)]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(EVERY)
    assert all(line.startswith(f"{walked_all / 'data' / command[0]}") for line, command in zip(said, EVERY, strict=True))
    assert all(line.endswith(MADE) for line in said)
    assert states(walked_all) == before


def test_changed_inputs_make_it_anew(copy: Path, is_made_anew: MadeAnew) -> None:
    assert is_made_anew("pretrain", "-m", "mhr", "--set", "pretrain.lr=0.5")
    for command in (["average", "-m", "mhr"], ["adapt", "-m", "mhr_mu"], ["evaluate", "-m", "mhr_mu"]):
        assert is_made_anew(*command)
    rewrite(copy / "tasks/test/swap.jsonl", "ant", "eel")()
    assert is_made_anew("prepare")
    assert not is_made_anew("pretrain", "-m", "lora")
    for stage in ("adapt", "evaluate"):
        assert is_made_anew(stage, "-m", "lora")


def test_processes_of_one_machine_decide_alike_and_one_of_them_says_it(
    walked: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = walked / "data/prepare"
    card = read_card(out, stage="prepare", command="")
    made = Provenance("prepare", card.params, {"tasks": walked / "tasks"})
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert nothing_to_do(made, out, force=False)
    assert capfd.readouterr().err.count(MADE) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines, of which one may not see the other's files
    assert not nothing_to_do(made, out, force=False)


def test_processes_are_those_that_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched_processes() == 4


def test_the_project_is_a_folder_or_that_of_the_environment(
    walked: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRCTL_PROJECT", str(walked))
    assert run("prepare") == 0
    assert capfd.readouterr().err == f"{walked / 'data/prepare'}{MADE}\n"
    monkeypatch.delenv("MHRCTL_PROJECT")
    monkeypatch.chdir(walked)
    assert run("prepare") == 0
    assert capfd.readouterr().err == f"data/prepare{MADE}\n"


def test_a_device_of_the_environment_is_checked_too(
    walked: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRCTL_DEVICE", "cuda:1")
    assert run("adapt", "-m", "lora", "-C", walked) == 2
    assert "--device cuda:1: choose `auto` or `cpu`" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["backbone", "--set", "pretrain.lr=1"], "--set pretrain.lr=1: this command reads the section `backbone` only"),
        (["prepare", "--set", "index.examples=1"], "this command reads the section `prepare` only"),
        (["index", "--set", "prepare.seed=1"], "this command reads the section `index` only"),
        (["index", "--recipe", "t0"], "--recipe t0: it sets nothing in index, which is what this command reads; leave it out"),
        (["index", "query", "--task", "a", "--set", "index.examples=1"], "this command reads the section `adapt` only"),
        (["average", "-m", "mhr", "--set", "pretrain.lr=1"], "this command reads the section `grid` only"),
        (["report", "--set", "evaluate.beams=2"], "this command reads the section `report` only"),
        (
            ["report", "--table", "2", "--set", "report.tables=[1]"],
            "this command reads the settings report.trials, report.margin only",
        ),
        (["evaluate", "-m", "backbone", "--set", "adapt.lr=1"], "this command reads the section `evaluate` only"),
        (["evaluate", "-m", "backbone", "--seed", "1"], "--method backbone has no --heads, --variant, --extra-steps, --seed"),
        (["evaluate", "--cell", "backbone", "--set", "evaluate.beams=2"], "--cell takes all settings from the cell's file"),
        (["adapt", "--cell", "../../x"], "--cell '../../x': no name of a cell"),
        (["adapt", "-m", "lora", "--variant", "../x"], "--variant '../x': no name of a variant"),
        (["export", "-m", "lora", "--variant", "/etc"], "--variant '/etc': no name of a variant"),
        (["pretrain", "-m", "lora", "--extra-steps", "3", "--set", "pretrain.steps=1"], "--extra-steps says how many steps"),
        (["pretrain", "-m", "lora", "--set", "pretrain.lr=\udcff"], "is not valid YAML"),
    ],
)
def test_options_that_do_nothing_or_lead_elsewhere_are_one_line(
    project: Path, run: Run, capfd: Capture, command: list[str], said: str
) -> None:
    assert run(*command, "-C", project) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (project / "data").exists()
