"""`mhrctl export`: what it prints and where it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


def test_folders_are_one_line(copy: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("export", "-m", "lora", "-C", copy) == 0
    shown = capfd.readouterr()
    folders = [copy / f"data/export/adapt/lora-s0/{task}" for task in ("swap", "twice")]
    assert shown.err == f"wrote 2 PEFT folders to {folders[0].parent}; each README.md shows how to load it\n"
    assert shown.out == ""
    assert all((folder / "adapter_config.json").exists() for folder in folders)


def test_a_merged_model_of_one_task(copy: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    assert run("export", "-m", "mhr_mu", "--merge", "--task", "swap", "--out", tmp_path / "out", "-C", copy) == 0
    assert capfd.readouterr().err.endswith(
        f"wrote a merged model to {tmp_path / 'out/swap'}; its README.md shows how to load it\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["swap"]
    assert json.loads((tmp_path / "out/swap/card.json").read_text())["params"]["merged"] is True


def test_a_pretraining_is_that_of_all_its_methods(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("export", "-m", "mhr_z", "--stage", "pretrain", "-C", copy) == 0
    assert capfd.readouterr().err.endswith(
        f"wrote a PEFT folder to {copy / 'data/export/pretrain/mhr-h4-s0'}; its README.md shows how to load it\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
        (["-m", "lora", "--extra-steps", 3], "--extra-steps: such a cell is not adapted; export --stage pretrain"),
        (["-m", "lora", "--task", "swop"], "--task swop: unknown task 'swop'; did you mean 'swap'?"),
        (["-m", "lora", "--seed", 9], "lora-s9: no finished adapt output; run `mhrctl adapt lora-s9`"),
        (["-m", "mhr", "--stage", "pretrain", "--merge"], "--merge: a routed inventory is no single adapter"),
    ],
)
def test_what_is_refused_is_one_line_and_writes_nothing(
    copy: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    capfd.readouterr()
    assert run("export", *options, "-C", copy) == 2
    assert message in complaint(capfd)
    assert not (copy / "data/export").exists()


@pytest.mark.parametrize("options", [["--to", "keras"], ["--stage", "evaluate"]])
def test_unknown_choices_are_exit_code_2(walked: Path, run: Run, options: list[str]) -> None:
    assert run("export", "-m", "lora", *options, "-C", walked) == 2
