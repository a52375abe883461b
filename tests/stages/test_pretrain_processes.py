"""pretrain in two processes: what one learns with twice the accumulation, whether they divide the frozen weights or not."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Run, mhrctl

CELL = "mhr-h4-s0"
OPTIONS = [
    "pretrain",
    "--method",
    "mhr",
    "--heads",
    "4",
    "--device",
    "cpu",
    "--set",
    "pretrain.steps=6",
    "--set",
    "pretrain.lr=0.01",
]
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
TORCHRUN = [*LAUNCHER, "mhrctl"]
ROOT = Path(__file__).parents[2]


def learned(project: Path) -> dict[str, torch.Tensor]:
    return load_file(project / "data/pretrain" / CELL / "adapters.safetensors")


def read_log(project: Path) -> list[dict[str, str]]:
    with (project / f"data/metrics/pretrain/{CELL}.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_twice_the_accumulation(copy: Path, tmp_path: Path, run: Run) -> None:
    spread = Path(shutil.copytree(copy, tmp_path / "spread"))
    launched = subprocess.run(
        [sys.executable, *TORCHRUN, *OPTIONS, "-C", str(spread)], capture_output=True, text=True, timeout=300, check=False
    )
    assert launched.returncode == 0, launched.stderr
    again = subprocess.run(
        [sys.executable, *TORCHRUN, *OPTIONS, "-C", str(spread)], capture_output=True, text=True, timeout=300, check=False
    )
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(f"{CELL} is up to date") == 1
    assert run(*OPTIONS, "--set", "pretrain.accumulation=2", "-C", copy) == 0
    one, two = learned(copy), learned(spread)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    for key in ("step", "tokens", "lr"):
        assert [row[key] for row in read_log(spread)] == [row[key] for row in read_log(copy)]

    assert run(*OPTIONS, "-C", copy) == 0  # without it, half of each step's examples are missing
    half = learned(copy)
    assert any((half[name] - one[name]).abs().max() > 1e-3 for name in one)


@pytest.mark.slow
def test_two_processes_keep_the_step_that_one_does(copy: Path, tmp_path: Path, run: Run) -> None:
    spread = Path(shutil.copytree(copy, tmp_path / "spread"))
    best = ["--set", "pretrain.keep=best", "--set", "pretrain.validate_every=1", "--set", "pretrain.warmup=0.6"]
    options = [*(option.replace("lr=0.01", "lr=20") for option in OPTIONS), *best]
    launched = subprocess.run(
        [sys.executable, *TORCHRUN, *options, "-C", str(spread)], capture_output=True, text=True, timeout=300, check=False
    )
    assert launched.returncode == 0, launched.stderr
    assert run(*options, "--set", "pretrain.accumulation=2", "-C", copy) == 0
    ((one,), (two,)) = (
        json.loads((project / f"data/pretrain/{CELL}/card.json").read_text())["facts"]["kept"] for project in (copy, spread)
    )
    assert one["step"] == two["step"] < 6, "the last is the best"
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-4)
    torch.testing.assert_close(learned(spread), learned(copy), rtol=1e-4, atol=1e-5)


def launch(project: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Pre-train in two processes with a checkpoint every two steps."""
    command = [sys.executable, *LAUNCHER, "tests.stages.launched", *OPTIONS, *options, "-C", str(project)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def made(project: Path) -> dict[str, bytes]:
    """The files that a pre-training leaves."""
    files = [*(project / f"data/pretrain/{CELL}").iterdir(), project / f"data/metrics/pretrain/{CELL}.csv"]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.slow
def test_two_processes_with_half_of_the_weights_each_learn_what_one_does_with_all(copy: Path, tmp_path: Path, run: Run) -> None:
    halves, killed = (Path(shutil.copytree(copy, tmp_path / name)) for name in ("halves", "killed"))
    whole = launch(halves, "--shard")
    assert whole.returncode == 0, whole.stderr
    assert run(*OPTIONS, "--set", "pretrain.accumulation=2", "-C", copy) == 0
    torch.testing.assert_close(learned(halves), learned(copy), rtol=0, atol=1e-6)
    for key in ("step", "tokens", "lr"):
        assert [row[key] for row in read_log(halves)] == [row[key] for row in read_log(copy)]

    assert launch(killed, "--shard", KILLED_AFTER="4").returncode != 0
    assert made(killed) != made(halves), "what was there before is there still"
    again = launch(killed, "--shard")
    assert again.returncode == 0, again.stderr
    assert sorted(line for line in again.stderr.splitlines() if "goes on" in line) == [
        f"process {number} goes on from step 4" for number in (0, 1)
    ]
    assert made(killed) == made(halves)


@pytest.fixture
def causal(project: Path) -> Path:
    """A project whose backbone is a small Llama."""
    params = project / "params.yaml"
    text = params.read_text().replace("  tokenizer: word\n", "  tokenizer: word\n  framing: causal\n")
    params.write_text(text.replace("scratch: {", "scratch: {architecture: llama, "))
    for step in (["grid", "sync"], ["prepare"], ["backbone"]):
        assert mhrctl(*step, "-C", project) == 0
    return project


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_divided_weights_change_no_bit_of_a_decoder_only_training(causal: Path, tmp_path: Path, precision: str) -> None:
    measured = ["align_every=3", "validate_every=2", "keep=best", "accumulation=2", f"precision={precision}"]
    settings = [word for setting in measured for word in ("--set", f"pretrain.{setting}")]
    halves = Path(shutil.copytree(causal, tmp_path / "halves"))
    for project, options in ((causal, settings), (halves, ["--shard", *settings])):
        done = launch(project, *options)
        assert done.returncode == 0, done.stderr
    assert made(halves) == made(causal)
    assert [row["shared"] != "" for row in read_log(halves)] == [False, True, False, True]


@pytest.mark.slow
def test_weights_that_are_trained_are_not_divided(copy: Path) -> None:
    options = ["pretrain", "-m", "full_ft", "--device", "cpu", "--shard", "-C", str(copy)]
    done = subprocess.run([sys.executable, *TORCHRUN, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "error: --shard: full_ft trains all weights, and only frozen ones are divided among processes" in done.stderr
