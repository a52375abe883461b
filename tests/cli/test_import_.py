"""`mhrctl import`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


@pytest.fixture
def exported(copy: Path, tmp_path: Path, run: Run, capfd: Capture) -> Path:
    """A LoRA as peft saves it."""
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "lora", "-C", copy) == 0
    capfd.readouterr()
    return tmp_path / "lora"


def test_the_next_command_is_printed(copy: Path, exported: Path, run: Run, capfd: Capture) -> None:
    assert run("import", exported, "--seed", 7, "-C", copy) == 0
    counts = json.loads((copy / "data/pretrain/lora-s7/card.json").read_text())["facts"]["parameters"]
    assert capfd.readouterr().err == (
        f"wrote {copy / 'data/pretrain/lora-s7'}: {counts['multi_task']:,} adapter and 0 routing parameters;"
        " go on with `mhrctl adapt lora-s7`\n"
    )


def test_a_cell_of_the_grid_is_noted(copy: Path, exported: Path, run: Run, capfd: Capture) -> None:
    assert run("import", exported, "--replace", "-C", copy) == 0
    note = "note: lora-s0 is in the grid: `dvc repro` would pre-train it, `dvc commit pretrain@lora-s0` keeps this"
    assert capfd.readouterr().err.splitlines()[-1] == note


@pytest.mark.parametrize(
    ("code", "said"), [(0, "DVC has it as pre-trained; `mhrctl run` goes on from it"), (1, "`dvc repro` would")]
)
def test_dvc_is_told_of_a_cell_of_the_grid(
    copy: Path, exported: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    """If it can be; the log of a training that was none has no rows."""
    commands: list[list[str]] = []

    def told(command: list[str], **_options: object) -> CompletedProcess[str]:
        commands.append(command)
        return CompletedProcess(command, code)

    (copy / ".dvc").mkdir()
    monkeypatch.setattr("mhrctl.tools.import_.subprocess.run", told)
    assert run("import", exported, "--replace", "-C", copy) == 0
    assert [command[2:] for command in commands] == [["dvc", "commit", "--force", "--quiet", "pretrain@lora-s0"]]
    assert said in capfd.readouterr().err.splitlines()[-1]
    assert (copy / "data/metrics/pretrain/lora-s0.csv").read_text().splitlines() == ["step,loss,lr,routing_lr,tokens"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is a pre-training of this cell; choose another --seed, or --replace it"),
        (["-m", "poly", "--seed", 7], "--method poly: the file holds what lora or lora_big or lora_matched pre-trains"),
        (["-m", "lorra", "--seed", 7], "--method lorra: the file holds what lora or lora_big or lora_matched pre-trains"),
        (["--variant", "light"], "--variant: unknown variant 'light' (known: plain)"),
    ],
)
def test_what_is_refused_is_one_line_and_writes_nothing(
    copy: Path, exported: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    before = {path: path.read_bytes() for path in (copy / "data/pretrain").rglob("*") if path.is_file()}
    assert run("import", exported, *options, "-C", copy) == 2
    assert message in complaint(capfd)
    assert {path: path.read_bytes() for path in (copy / "data/pretrain").rglob("*") if path.is_file()} == before


def test_what_is_no_adapter_is_one_line(copy: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("import", tmp_path / "nowhere", "-C", copy) == 2
    assert "nowhere: not there; an adapter is a folder that peft's save_pretrained wrote" in complaint(capfd)
