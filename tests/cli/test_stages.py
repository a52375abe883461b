"""Commands of stages: inputs that are edited while they run, and outputs that stand already."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import T5ForConditionalGeneration

from mhrctl.artifacts.cards import Card, read_card
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.provenance import Provenance
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.cli.options import nothing_to_do
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from tests.conftest import AVERAGED, CELLS, PRETRAINED, Run

Capture = pytest.CaptureFixture[str]
CELL = ["--cell", "lora-s0"]


def editing(monkeypatch: pytest.MonkeyPatch, edit: Callable[[], object]) -> None:
    """Have something edited while a stage runs, once it has read all it reads."""
    made = Card.of

    def of(*arguments: Any, **facts: Any) -> Any:
        edit()
        return made(*arguments, **facts)

    monkeypatch.setattr(Card, "of", of)


def rewrite(path: Path, old: str, new: str) -> Callable[[], object]:
    assert old in path.read_text()
    return lambda: path.write_text(path.read_text().replace(old, new))


EDITS = {
    "prepare": ([], "params.yaml", "examples: 4", "examples: 5"),
    "backbone": ([], "params.yaml", "steps: 2", "steps: 3"),
    "pretrain": (CELL, "data/cells/lora-s0.json", '"batch_size": 4', '"batch_size": 3'),
    "adapt": (CELL, "data/pretrain/lora-s0/card.json", '"stage"', '"stage" '),
    "evaluate": (CELL, "data/adapt/lora-s0/validation.csv", "swap", "sweep"),
    "average": (["--cell", "mhr-h4-s0"], "data/pretrain/mhr-h4-s0/card.json", '"stage"', '"stage" '),
}


@pytest.mark.parametrize("stage", EDITS)
def test_a_result_of_edited_inputs_is_not_kept(
    stage: str, copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    cell, file, old, new = EDITS[stage]
    outputs = [copy / "data" / stage, copy / "data/metrics"]
    before = [digest(path) for path in outputs]
    editing(monkeypatch, rewrite(copy / file, old, new))
    assert run(stage, *cell, "--force", "-C", copy) == 2
    said = capfd.readouterr().err.splitlines()
    what = "its settings were" if file.startswith(("params", "data/cells")) else f"{copy / Path(file).parent} was"
    assert f"{what} edited while this ran" in said[-1]
    assert "run it again" in said[-1]
    monkeypatch.undo()
    for path in (copy / "data").glob(f"{stage}/.*.partial"):  # what `writing` leaves of a run that failed
        shutil.rmtree(path)
    shutil.rmtree(copy / f"data/.{stage}.partial", ignore_errors=True)
    assert [digest(path) for path in outputs] == before


def test_edits_beside_what_a_stage_reads_do_not_matter(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    params = copy / "params.yaml"

    def edit() -> None:
        text = params.read_text().replace("evaluate_every: 2", "evaluate_every: 1")
        params.write_text(text.replace("seeds: [0]", "seeds: [0, 4]"))
        (copy / "data/prepare/test_tasks.parquet").touch()
        (copy / "data/backbone/card.json").touch()  # the same bytes

    editing(monkeypatch, edit)
    assert run("pretrain", "--method", "lora", "--force", "-C", copy) == 0


MADE = " is made already; --force makes it anew"
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


def is_made_anew(run: Run, capfd: Capture, *command: object) -> bool:
    """Run a stage; whether it has computed its output, which then stands."""
    said = []
    for _ in range(2):
        capfd.readouterr()
        assert run(*command) == 0
        said.append(capfd.readouterr().err.splitlines()[-1])
    assert said[1].endswith(MADE) or "--force" in command
    return not said[0].endswith(MADE)


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "--force"],
        ["prepare", "--set", "prepare.examples=3"],
        ["backbone", "--set", "backbone.seed=3"],
        ["pretrain", "-m", "lora", "--force"],
        ["average", "-m", "mhr", "--force"],
        ["adapt", "-m", "lora", "--set", "adapt.lr=0.5"],
        ["evaluate", "-m", "lora", "--zero-shot"],
        ["evaluate", "-m", "lora", "--force"],
    ],
    ids=" ".join,
)
def test_other_settings_and_force_make_it_anew(copy: Path, run: Run, capfd: Capture, command: list[str]) -> None:
    assert is_made_anew(run, capfd, *command, "-C", copy)


@pytest.mark.parametrize("options", [["--off", "all"], ["--together", "1"], ["--checkpointing"], ["--device", "cpu"]])
def test_how_it_is_computed_does_not(copy: Path, run: Run, capfd: Capture, options: list[str]) -> None:
    assert not is_made_anew(run, capfd, "adapt", "-m", "lora", *options, "-C", copy)


LOG, SCORES = "data/metrics/pretrain/lora-s0.csv", "data/metrics/evaluate/lora-s0.json"


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("pretrain", LOG),
        ("pretrain", "data/pretrain/lora-s0/validation.csv"),
        ("adapt", "data/adapt/lora-s0/adapters.safetensors"),
        ("evaluate", SCORES),
        ("evaluate", "data/evaluate/lora-s0/predictions.parquet"),
    ],
)
def test_an_output_that_is_not_whole_is_made_anew(copy: Path, run: Run, capfd: Capture, stage: str, file: str) -> None:
    path = copy / file
    before = path.read_bytes()
    path.unlink()
    assert is_made_anew(run, capfd, stage, "-m", "lora", "-C", copy)
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    assert is_made_anew(run, capfd, stage, "-m", "lora", "-C", copy)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("stage", "file"), [("pretrain", LOG), ("evaluate", SCORES)])
def test_what_stands_beside_an_output_is_of_the_same_run(copy: Path, run: Run, capfd: Capture, stage: str, file: str) -> None:
    """Not of a run that ended before its folder was in place, nor of another commit of the project."""
    path = copy / file
    before = path.read_bytes()
    path.write_bytes(before.replace(b"1", b"2"))
    assert is_made_anew(run, capfd, stage, "-m", "lora", "-C", copy)
    assert path.read_bytes() == before


def test_a_run_that_was_cut_short_leaves_no_output_that_stands(
    copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / LOG).read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mhrctl.stages.pretrain.write_card", killed)
        assert run("pretrain", "-m", "lora", "--set", "pretrain.lr=0.5", "-C", copy) == 130
    assert (copy / LOG).read_bytes() != before
    assert is_made_anew(run, capfd, "pretrain", "-m", "lora", "-C", copy)
    assert (copy / LOG).read_bytes() == before


def test_changed_inputs_make_it_anew(copy: Path, run: Run, capfd: Capture) -> None:
    assert is_made_anew(run, capfd, "pretrain", "-m", "mhr", "--set", "pretrain.lr=0.5", "-C", copy)
    for command in (["average", "-m", "mhr"], ["adapt", "-m", "mhr_mu"], ["evaluate", "-m", "mhr_mu"]):
        assert is_made_anew(run, capfd, *command, "-C", copy)
    rewrite(copy / "tasks/test/swap.jsonl", "ant", "eel")()
    assert is_made_anew(run, capfd, "prepare", "-C", copy)
    assert not is_made_anew(run, capfd, "pretrain", "-m", "lora", "-C", copy)
    for stage in ("adapt", "evaluate"):
        assert is_made_anew(run, capfd, stage, "-m", "lora", "-C", copy)


def test_other_versions_of_stage_and_libraries_make_it_anew(
    copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = copy / "data/adapt/lora-s0/card.json"
    content = json.loads(card.read_text())
    for changed in (
        content | {"libraries": content["libraries"] | {"torch": "1.0"}},
        {name: value for name, value in content.items() if name not in ("files", "beside")},  # before there were these
    ):
        card.write_text(json.dumps(changed))
        assert is_made_anew(run, capfd, "adapt", "-m", "lora", "-C", copy)
        assert json.loads(card.read_text()) == content
    monkeypatch.setattr("mhrctl.artifacts.cards.STAGE_VERSIONS", STAGE_VERSIONS | {"adapt": 7})
    assert is_made_anew(run, capfd, "adapt", "-m", "lora", "-C", copy)
    monkeypatch.setattr("mhrctl.artifacts.cards.STAGE_VERSIONS", STAGE_VERSIONS | {"adapt": 7, "pretrain": 8})
    assert run("adapt", "-m", "lora", "-C", copy) == 2
    assert f"lora-s0: made by version {STAGE_VERSIONS['pretrain']} of pretrain" in capfd.readouterr().err


def test_a_backbone_in_a_folder_is_read_each_time(
    copy: Path, run: Run, capfd: Capture, tiny_t5: T5ForConditionalGeneration
) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    for _ in range(2):
        assert run("backbone", "--set", "backbone.source=local", "--set", "backbone.name=checkpoint", "-C", copy) == 0
        assert f"wrote {copy / 'data/backbone'}: checkpoint" in capfd.readouterr().err


def test_an_average_is_of_a_pretraining_that_is_there(copy: Path, run: Run, capfd: Capture) -> None:
    shutil.rmtree(copy / "data/pretrain/mhr-h4-s0")
    assert run("average", "-m", "mhr", "-C", copy) == 2
    assert f"run `mhrctl pretrain {Cell(method='mhr', heads=4).options}`" in capfd.readouterr().err


def test_processes_of_one_machine_answer_alike_and_one_of_them_says_it(
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
