"""Trainings that diverge: one line that says which step and rate, exit 2, and nothing written or lost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mhrctl.evaluation import adaptation, pretraining
from mhrctl.training import checkpoint
from mhrctl.training.objective import Objective
from tests.conftest import Run

HUGE = "1e25"
EVERY_FILE = "**/*"
Files = Mapping[Path, bytes]


def files_of(project: Path) -> Files:
    """All that a project has, but for the caches of examples and what a run took."""
    data = project / "data"
    skipped = (data / "log", data / "scratch")
    return {
        path: path.read_bytes()
        for path in data.glob(EVERY_FILE)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in skipped)
    }


def checkpoints(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "data/scratch").glob("pretrain-*"))


def settings(stage: str, **values: object) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{stage}.{name}={value}")]


def assert_refused(run: Run, capfd: pytest.CaptureFixture[str], project: Path, *command: object) -> str:
    """Run a command that must fail in one line and change nothing; returns the line."""
    before = files_of(project)
    capfd.readouterr()
    assert run(*command, "--force", "-C", project) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert files_of(project) == before
    return lines[0]


PRETRAININGS: dict[str, tuple[str, dict[str, object], str]] = {
    "lora": ("lora", {"lr": HUGE}, "step 2 (learning rate: lr "),
    "mhr": ("mhr", {"lr": HUGE}, "step 2 (learning rate: lr "),
    "poly, both rates": ("poly", {"lr": HUGE, "routing_lr": HUGE}, "lower pretrain.lr or pretrain.routing_lr"),
    "ia3": ("ia3", {"lr": HUGE}, "step 2 "),
    "full fine-tuning": ("full_ft", {"lr": HUGE}, "step 2 "),
    "mosa": ("mosa", {"lr": HUGE}, "step 2 "),
    "data sets side by side": ("adapter_soup", {"lr": HUGE, "steps": 12}, "of copy, first, last"),
    "adafactor": ("lora", {"lr": HUGE, "optimizer": "adafactor"}, "step 2 "),
    "a bf16 backbone": ("lora", {"lr": HUGE, "precision": "bf16"}, "step 2 "),
    "no warmup": ("lora", {"lr": HUGE, "warmup": 0}, "step 2 "),
    "a long warmup": ("lora", {"lr": HUGE, "warmup": 1.0}, "step 3 "),
    "accumulation": ("lora", {"lr": HUGE, "accumulation": 2}, "step 2 "),
    "one step": ("lora", {"lr": HUGE, "steps": 1, "warmup": 0}, "the validation loss of copy, first, last is not finite"),
    "a rate that overflows": ("lora", {"lr": "3e38", "steps": 1, "warmup": 0, "weight_decay": 0}, "is not finite"),
    "example sums": ("lora", {"lr": HUGE, "loss": "example_sum"}, "step 2 "),
}


@pytest.mark.parametrize(("method", "values", "part"), PRETRAININGS.values(), ids=PRETRAININGS)
def test_a_pretraining(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], method: str, values: dict[str, object], part: str
) -> None:
    line = assert_refused(run, capfd, copy, "pretrain", "-m", method, *settings("pretrain", **values))
    assert re.match(rf"error: pretrain {method}(-h4)?-s0: ", line)
    assert part in line
    assert "lower pretrain.lr" in line
    assert checkpoints(copy) == []


@pytest.mark.parametrize(
    ("method", "values", "part"),
    [
        ("lora", {"lr": HUGE}, "the loss of swap, twice is nan at step 2 (learning rate: lr "),
        ("mhr", {"lr": HUGE, "evaluate_every": 4}, "at step 2 (learning rate: lr "),
        ("lora", {"lr": HUGE, "evaluate_every": 1}, "what the model computes for swap, twice is not finite after step 1"),
        (
            "lora",
            {"lr": HUGE, "evaluate_every": 1, "select": "loss"},
            "validation loss of swap, twice is not finite after step 1",
        ),
        ("lora", {"lr": HUGE, "optimizer": "adafactor", "evaluate_every": 4}, "at step 2 "),
        ("lora", {"lr": HUGE, "precision": "bf16", "evaluate_every": 4}, "at step 2 "),
    ],
)
def test_an_adaptation(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], method: str, values: dict[str, object], part: str
) -> None:
    line = assert_refused(run, capfd, copy, "adapt", "-m", method, *settings("adapt", **{"warmup": 0} | values))
    assert part in line
    assert line.startswith("error: adapt ")
    assert "lower adapt.lr" in line
    assert line.endswith("; nothing was written")


def test_a_backbone(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    line = assert_refused(run, capfd, copy, "backbone", *settings("backbone.scratch", lr=HUGE, steps=4))
    assert re.fullmatch(
        r"error: backbone: .* at step \d \(learning rate: lr \S+\); lower backbone.scratch.lr; nothing was written", line
    )


def test_extra_steps(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("pretrain", "-m", "mhr_mu", "--extra-steps", 3)
    line = assert_refused(run, capfd, copy, *options, *settings("pretrain", lr=HUGE))
    assert re.match(r"error: pretrain \S+-x3-s0: the loss is nan at step 2 ", line)


class OneBadRun(Objective):
    """The losses of a stage, of which that of one run is no number from some call on."""

    run, call, calls = 1, 3, 0

    def __call__(self, model: Any, batch: Any, *, runs: int) -> Tensor:
        losses = super().__call__(model, batch, runs=runs)
        OneBadRun.calls += torch.is_grad_enabled()
        factors = torch.ones(len(losses))
        if OneBadRun.calls >= self.call and torch.is_grad_enabled():
            factors[self.run] = math.nan
        return losses * factors


def spoil(patch: pytest.MonkeyPatch, stage: Any) -> None:
    def objective_of(params: Any) -> OneBadRun:
        return OneBadRun(params.loss, 0.0)

    patch.setattr(OneBadRun, "calls", 0)
    patch.setattr(stage, "objective_of", objective_of)


def test_one_task_of_several_is_named(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, adaptation)
        line = assert_refused(run, capfd, copy, "adapt", "-m", "lora")
    assert "adapt lora-s0: the loss of twice is nan at step 3 " in line
    with monkeypatch.context() as patch:
        spoil(patch, pretraining)
        line = assert_refused(run, capfd, copy, "pretrain", "-m", "adapter_soup", *settings("pretrain", steps=12))
    assert "pretrain adapter_soup-s0: the loss of first is nan at step 3 " in line


def test_the_last_good_checkpoint_is_kept_and_gone_on_from(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "data/pretrain/lora-s0/adapters.safetensors"
    options = ("pretrain", "-m", "lora", *settings("pretrain", steps=8), "-C", copy)
    assert run(*options) == 0
    expected = path.read_bytes()
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    with monkeypatch.context() as patch:
        spoil(patch, pretraining)
        patch.setattr(OneBadRun, "run", 0)
        patch.setattr(OneBadRun, "call", 7)
        line = assert_refused(run, capfd, copy, *options[:-2])
    assert "the loss is nan at step 7 " in line
    assert line.endswith("; its checkpoint of step 6 is kept")
    assert checkpoints(copy) == ["pretrain-lora-s0.previous.safetensors", "pretrain-lora-s0.safetensors"]
    for name in checkpoints(copy):
        assert all(tensor.isfinite().all() for tensor in load_file(copy / "data/scratch" / name).values())
    assert run(*options, "--force") == 0  # of the same settings: from step 6
    assert path.read_bytes() == expected
    assert checkpoints(copy) == []


def test_other_settings_start_anew(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "data/pretrain/lora-s0/adapters.safetensors"
    expected = path.read_bytes()
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    line = assert_refused(run, capfd, copy, "pretrain", "-m", "lora", *settings("pretrain", lr=HUGE))
    assert line.endswith("; its checkpoint of step 1 is kept")
    assert run("pretrain", "-m", "lora", "--force", "-C", copy) == 0
    assert path.read_bytes() == expected
    assert checkpoints(copy) == []


def grow(path: Path, factor: float) -> None:
    """Make the numbers of an adapter large, and its card none the wiser."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({name: tensor * factor for name, tensor in load_file(path).items()}, path, metadata)


@pytest.mark.parametrize("beams", [1, 2])
def test_no_score_comes_of_logits_that_are_no_numbers(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], beams: int
) -> None:
    options = settings("pretrain", lr=HUGE, steps=1, warmup=0, validate_examples=0)
    assert run("pretrain", "-m", "lora", "--seed", 7, *options, "-C", copy) == 0  # finite still, and unfit
    line = assert_refused(run, capfd, copy, "adapt", "-m", "lora", "--seed", 7)
    assert "adapt lora-s7: what the model computes for swap, twice is not finite after step 0; look at the backbone" in line
    line = assert_refused(
        run, capfd, copy, "evaluate", "-m", "lora", "--seed", 7, "--zero-shot", *settings("evaluate", beams=beams)
    )
    assert "error: evaluate lora-s7: what the model computes for swap, twice is not finite" in line


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_with_numbers_that_are_none_is_refused(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], bad: float
) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    grow(path, bad)
    for command in ("average", "adapt"):
        line = assert_refused(run, capfd, copy, command, "-m", "mhr")
        assert str(path) in line


def test_a_damaged_checkpoint_is_told_in_one_line_and_changes_no_bit(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    expected, real, saved = path.read_bytes(), checkpoint.save_checkpoint, []

    def killed(place: Path, **rest: Any) -> None:
        real(place, **rest)
        saved.append(place)
        if len(saved) == 2:
            raise KeyboardInterrupt

    options = ("pretrain", "-m", "mhr", "--force", "-C", copy)
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    for damaged, tells in (([0], "goes on from step 1"), ([0, 1], "starts again")):
        saved.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "save_checkpoint", killed)
            assert run(*options) == 130
        for number in damaged:
            place = (
                copy / "data/scratch" / ("pretrain-mhr-h4-s0.safetensors", "pretrain-mhr-h4-s0.previous.safetensors")[number]
            )
            place.write_bytes(place.read_bytes()[:-1] + b"?")
        capfd.readouterr()
        assert run(*options) == 0
        warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == len(damaged)
        assert all("is damaged" in warning and tells in warning for warning in warnings)
        assert path.read_bytes() == expected
        left = checkpoints(copy)
        assert len(left) == len(damaged)
        assert all(name.endswith(".damaged") for name in left)
        for name in left:
            (copy / "data/scratch" / name).unlink()
