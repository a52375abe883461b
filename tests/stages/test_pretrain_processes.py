"""pretrain in two processes: what one process learns with twice the accumulation."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Run

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
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "mhrctl"]


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
    assert again.stderr.count(f"{CELL} is made already") == 1
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
    options = [*(option.replace("lr=0.01", "lr=9") for option in OPTIONS), *best]
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
