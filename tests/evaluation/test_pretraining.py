"""Pre-training that validates while it trains: nothing of the training changes, and the step of the least loss is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.files import load_adapter
from mhrctl.artifacts.hashing import digest
from mhrctl.evaluation import pretraining, validation
from mhrctl.training import checkpoint
from tests.conftest import Run, killed_after_checkpoint
from tests.stages.test_pretrain import NOISY, read_log, settings

OVERSHOT = {
    "lora": ("lora-s0", "9"),
    "mhr": ("mhr-h4-s0", "9"),
    "full_ft": ("full_ft-s0", "3"),
    "mosa": ("mosa-s0", "30"),
    "ia3": ("ia3-s0", "15"),
}
"""{method: its cell, and a rate by which its loss falls and rises again within six steps}: a method for every class."""


def best(**changed: object) -> list[str]:
    usual: dict[str, object] = {"keep": "best", "validate_every": 1, "steps": 6, "warmup": 0.6}
    return settings(*(f"pretrain.{key}={value}" for key, value in (usual | changed).items()))


def overshot(method: str) -> list[str]:
    return ["pretrain", "-m", method, *best(lr=OVERSHOT[method][1])]


def losses_by_task(project: Path, cell: str) -> dict[str, float]:
    lines = (project / f"data/pretrain/{cell}/validation.csv").read_text().splitlines()[1:]
    return {task: float(loss) for task, loss in (line.split(",") for line in lines)}


def kept_of(project: Path, cell: str) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = json.loads((project / f"data/pretrain/{cell}/card.json").read_text())["facts"]["kept"]
    return kept


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    """{step: what was trained after it}, as checkpoints of every step have it."""
    by_step: dict[int, dict[str, Tensor]] = {}

    def save(*args: object, **options: Any) -> None:
        by_step[options["step"]] = {name: tensor.detach().clone() for name, tensor in options["parameters"].items()}
        checkpoint.save_checkpoint(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(pretraining, "save_checkpoint", save)
    return by_step


@pytest.mark.parametrize("method", list(OVERSHOT))
def test_the_step_of_the_least_loss_is_kept(
    copy: Path, run: Run, trained: dict[int, dict[str, Tensor]], method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cell = OVERSHOT[method][0]
    assert run(*overshot(method), "-C", copy) == 0
    rows = {int(row["step"]): float(row["validation_loss"]) for row in read_log(copy, cell)}
    least = min(rows, key=rows.__getitem__)
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    assert 1 < least < 6, "nothing is chosen here"
    assert kept_of(copy, cell) == [{"step": least, "validation_loss": rows[least]}]
    assert round(fmean(losses_by_task(copy, cell).values()), 5) == rows[least]
    written = dict(load_adapter(copy / f"data/pretrain/{cell}/adapters.safetensors").named_parameters())
    assert written.keys() == trained[least].keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in trained[least].items())
    assert f"routing parameters; kept step {least}, whose validation loss is {rows[least]:.4f}" in capfd.readouterr().err


def test_adapters_trained_alone_keep_a_best_step_each(
    copy: Path, run: Run, trained: dict[int, dict[str, Tensor]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Six steps of each of three data sets, side by side; the last `validation.csv` has the least loss of each."""
    options = ["pretrain", "-m", "adapter_soup", *best(steps=18, lr=6)]
    assert run(*options, "-C", copy) == 0
    kept, losses = kept_of(copy, "adapter_soup-s0"), losses_by_task(copy, "adapter_soup-s0")
    assert [each["validation_loss"] for each in kept] == list(losses.values())
    assert len({each["step"] for each in kept}) > 1, "they have the same step"
    rows = [float(row["validation_loss"]) for row in read_log(copy, "adapter_soup-s0")]
    assert len(rows) == 6
    assert fmean(losses.values()) < min(rows)
    written = dict(load_adapter(copy / "data/pretrain/adapter_soup-s0/adapters.safetensors").named_parameters())
    for row, each in enumerate(kept):
        assert all(torch.equal(tensor[row], trained[each["step"]][name][row]) for name, tensor in written.items())
    steps = [each["step"] for each in kept]
    assert f"; kept the best step of each: {min(steps)} to {max(steps)}" in capfd.readouterr().err
    assert run(*options, "--together", 2, "--force", "-C", copy) == 0  # in two parts
    assert [each["step"] for each in kept_of(copy, "adapter_soup-s0")] == steps
    assert len(read_log(copy, "adapter_soup-s0")) == 12


@pytest.mark.parametrize("method", ["mhr", "lora", "adapter_soup", "full_ft", "mosa", "random_mu", "ia3"])
def test_validating_changes_no_bit_of_the_training(copy: Path, run: Run, method: str) -> None:
    cell = "mhr-h4-s0" if method == "mhr" else f"{method}-s0"
    noisy = settings(*NOISY) if method == "mhr" else settings(*["pretrain.dropout=0.2"] * (method in ("lora", "adapter_soup")))
    path, options = copy / "data/pretrain" / cell, ("pretrain", "-m", method, *noisy, "-C", copy)
    assert run(*options) == 0
    plain, adapters, losses = read_log(copy, cell), digest(path / "adapters.safetensors"), digest(path / "validation.csv")
    assert run(*options, *settings("pretrain.validate_every=1")) == 0
    assert digest(path / "adapters.safetensors") == adapters
    assert digest(path / "validation.csv") == losses
    assert "kept" not in json.loads((path / "card.json").read_text())["facts"]
    rows = read_log(copy, cell)
    assert list(rows[0]) == [*plain[0], "validation_loss"]
    assert [{key: row[key] for key in plain[0]} for row in rows if row["step"] in {row["step"] for row in plain}] == plain
    assert float(rows[-1]["validation_loss"]) == round(fmean(losses_by_task(copy, cell).values()), 5)


def test_the_log_is_empty_where_nothing_was_validated(copy: Path, run: Run) -> None:
    both = settings("pretrain.validate_every=3", "pretrain.align_every=4")
    assert run("pretrain", "-m", "lora", *both, "-C", copy) == 0
    rows = read_log(copy, "lora-s0")
    assert list(rows[0])[-3:] == ["shared", "composed", "validation_loss"]
    assert [(row["step"], row["shared"] != "", row["validation_loss"] != "") for row in rows] == [
        ("2", False, False),  # of log_every
        ("3", False, True),
        ("4", True, True),
    ]
    log = [json.loads(line) for line in (copy / "data/pretrain/lora-s0/log.jsonl").read_text().splitlines()]
    assert [line["validation_loss"] for line in log] == [None, *(float(row["validation_loss"]) for row in rows[1:])]


def test_the_last_step_is_validated_beside_the_cadence(copy: Path, run: Run) -> None:
    assert run("pretrain", "-m", "lora", *best(validate_every=4), "-C", copy) == 0
    assert [row["step"] for row in read_log(copy, "lora-s0") if row["validation_loss"]] == ["4", "6"]
    assert run("pretrain", "-m", "lora", *best(validate_every=400), "-C", copy) == 0
    assert [each["step"] for each in kept_of(copy, "lora-s0")] == [6]


def test_of_equal_losses_the_earlier_step_is_kept(copy: Path, run: Run) -> None:
    """A rate so small that the fifth digit of no loss ever changes."""
    assert run("pretrain", "-m", "lora", *best(lr=1e-9, validate_every=2), "-C", copy) == 0
    rows = [row["validation_loss"] for row in read_log(copy, "lora-s0") if row["validation_loss"]]
    assert (len(rows), len(set(rows))) == (3, 1)
    assert [each["step"] for each in kept_of(copy, "lora-s0")] == [2]


@pytest.mark.parametrize("method", ["mhr", "adapter_soup"])
@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_run_keeps_the_same_step(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, method: str, killed_at: int
) -> None:
    """Killed before the best step, and after it, when only the checkpoint has it."""
    cell = "mhr-h4-s0" if method == "mhr" else "adapter_soup-s0"
    options = [
        "pretrain",
        "-m",
        method,
        *(best(lr=6, steps=18) if method == "adapter_soup" else best(lr=9)),
        "--force",
        "-C",
        copy,
    ]
    assert run(*options) == 0
    whole = digest(copy / "data/pretrain" / cell), read_log(copy, cell)
    assert all(each["step"] > 1 for each in kept_of(copy, cell))
    assert min(each["step"] for each in kept_of(copy, cell)) < 4
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", killed_at)
    with killed_after_checkpoint():
        assert run(*options) == 130
    assert run(*options) == 0
    assert (digest(copy / "data/pretrain" / cell), read_log(copy, cell)) == whole


def test_a_step_before_the_routing_fades_has_the_routing_that_was_learned(copy: Path, run: Run) -> None:
    """The losses of what is kept are those of its step, whatever the routing was mixed with later."""
    assert run("pretrain", "-m", "mhr", *best(lr=4, routing_lr=9, warmup=0, steps=8, uniform_steps=4), "-C", copy) == 0
    (kept,) = kept_of(copy, "mhr-h4-s0")
    assert 1 < kept["step"] <= 4, "it has faded, or is the start"
    assert round(fmean(losses_by_task(copy, "mhr-h4-s0").values()), 5) == kept["validation_loss"]
    assert run("align", "-m", "mhr", "-C", copy) == 0
    assert json.loads((copy / "data/metrics/align/mhr-h4-s0.json").read_text())["step"] == kept["step"]


def test_extra_steps_keep_the_best_of_theirs(copy: Path, run: Run) -> None:
    assert run("pretrain", "-m", "lora", "-C", copy) == 0
    options = settings("pretrain.keep=best", "pretrain.validate_every=2", "pretrain.lr=9", "pretrain.warmup=0.6")
    assert run("pretrain", "-m", "lora", "--extra-steps", 5, *options, "-C", copy) == 0
    rows = {int(row["step"]): float(row["validation_loss"]) for row in read_log(copy, "lora-x5-s0") if row["validation_loss"]}
    assert list(rows) == [2, 4, 5]
    assert [each["step"] for each in kept_of(copy, "lora-x5-s0")] == [min(rows, key=rows.__getitem__)]


def test_the_average_says_of_which_step_it_is(copy: Path, run: Run) -> None:
    assert run(*overshot("mhr"), "-C", copy) == 0
    assert run("average", "-m", "mhr", "-C", copy) == 0
    facts = json.loads((copy / "data/average/mhr-h4-s0/card.json").read_text())["facts"]
    assert facts["kept"] == kept_of(copy, "mhr-h4-s0")


def test_of_no_steps_the_start_is_kept(copy: Path, run: Run) -> None:
    options = ["pretrain", "-m", "lora", "--set", "pretrain.steps=0"]
    assert run(*options, "-C", copy) == 0
    start, losses = digest(copy / "data/pretrain/lora-s0/adapters.safetensors"), losses_by_task(copy, "lora-s0")
    assert run(*options, *settings("pretrain.keep=best", "pretrain.validate_every=2"), "-C", copy) == 0
    assert digest(copy / "data/pretrain/lora-s0/adapters.safetensors") == start
    assert kept_of(copy, "lora-s0") == [{"step": 0, "validation_loss": round(fmean(losses.values()), 5)}]
    assert read_log(copy, "lora-s0") == []


def test_a_loss_that_is_no_number_stops_the_training(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    measured: list[int] = []

    def losses(_model: object, samples: Sequence[object], *_args: object, **_options: object) -> list[float]:
        measured.append(len(samples))
        return [1.0, 1.0 if len(measured) < 3 else float("nan"), 1.0]

    monkeypatch.setattr(validation, "sample_losses", losses)
    assert run("pretrain", "-m", "lora", *best(), "--force", "-C", copy) == 2
    assert (
        "error: pretrain lora-s0: the validation loss of first is not finite after step 3; lower pretrain.lr;"
        " its checkpoint of step 2 is kept"
    ) in capfd.readouterr().err


def test_best_without_validation_examples_is_refused_before_training(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "first_examples", lambda _examples, _count: {})
    monkeypatch.setattr(pretraining, "first_examples", lambda _examples, _count: {})
    for method, of in (("lora", "any training task"), ("adapter_soup", "copy, first, last")):
        assert run("pretrain", "-m", method, "--seed", 3, *best(), "-C", copy) == 2
        said = capfd.readouterr().err
        assert f"error: pretrain.validate_examples: there are none of {of}; prepare more of its examples, or leave out" in said
        assert not (copy / f"data/pretrain/{method}-s3").exists()
