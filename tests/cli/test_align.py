"""`mhrctl align`: what it measures, writes and prints, and what it says when it cannot."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts.hashing import digest
from mhrctl.evaluation import pretraining
from tests.conftest import Run, killed_after_checkpoint


def record(project: Path, name: str) -> dict[str, Any]:
    return json.loads((project / f"data/metrics/align/{name}.json").read_text())


def test_the_end_of_a_cell(copy: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(copy / "data/pretrain/mhr-h4-s0")
    assert run("align", "-m", "mhr", "-C", copy) == 0
    written = record(copy, "mhr-h4-s0")
    backbone = json.loads((copy / "data/backbone/card.json").read_text())["facts"]["fingerprint"]
    expected = {"method": "mhr", "heads": 4, "variant": "plain", "seed": 0, "at": "end", "step": 4, "backbone": backbone}
    assert {key: written[key] for key in expected} == expected
    assert written["tasks"] == ["copy", "first", "last"]
    assert written["examples"] == 16
    for on in ("shared", "composed"):
        assert set(written[on]) == {"overall", "encoder", "decoder", "layers"}
        assert len(written[on]["layers"]) == 18
        assert all(-1 <= cosine <= 1 for cosine in written[on]["layers"].values())
    assert written["shared"] != written["composed"]
    out = capsys.readouterr().out
    assert "gradient alignment: mhr-h4-s0" in out
    assert "At the end: mean cosine over the pairs of 3 tasks." in out
    for row, on in (("shared skills", "shared"), ("composed adapters", "composed")):
        shown = [float(word) for word in out.split(row)[1].split()[:3]]
        assert shown == pytest.approx([written[on][part] for part in ("encoder", "decoder", "overall")], abs=6e-4)
    assert digest(copy / "data/pretrain/mhr-h4-s0") == before


def test_the_start_needs_no_training(copy: Path, run: Run) -> None:
    """All methods start from the backbone, where only the gradient of B is not 0; LoRA's stays the same on both sides."""
    shutil.rmtree(copy / "data/pretrain")
    for method in ("lora", "poly", "mhr"):
        assert run("align", "-m", method, "--at", "start", "-C", copy) == 0
    lora, poly, mhr = (record(copy, f"{name}-s0-start") for name in ("lora", "poly", "mhr-h4"))
    assert [(written["at"], written["step"]) for written in (lora, poly, mhr)] == [("start", 0)] * 3
    assert lora["shared"] == lora["composed"]
    for written in (poly, mhr):  # routing within 1e-3 of the average
        assert written["shared"]["overall"] == pytest.approx(written["composed"]["overall"], abs=1e-3)
    assert not (copy / "data/metrics/align/mhr-h4-s0.json").exists()


def test_fewer_tasks_and_examples(copy: Path, run: Run) -> None:
    assert run("align", "-m", "lora", "--tasks", 2, "--examples", 3, "-C", copy) == 0
    written = record(copy, "lora-s0")
    assert (len(written["tasks"]), written["examples"]) == (2, 3)


def test_what_shares_a_pre_training_shares_its_alignment(copy: Path, run: Run) -> None:
    assert run("align", "-m", "mhr_z", "-C", copy) == 0
    assert record(copy, "mhr-h4-s0")["method"] == "mhr"


def test_it_is_the_same_each_time(copy: Path, run: Run) -> None:
    path = copy / "data/metrics/align/poly-s0.json"
    assert run("align", "-m", "poly", "-C", copy) == 0
    before = path.read_bytes()
    assert run("align", "-m", "poly", "-C", copy) == 0
    assert path.read_bytes() == before


def test_the_checkpoint_of_a_killed_run(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what the run itself measured at that step, by the settings of the run and not of params.yaml."""
    options = ["pretrain", "-m", "mhr", "-C", copy, "--set", "pretrain.align_every=3", "--set", "pretrain.skills=3"]
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 3)
    with killed_after_checkpoint():
        assert run(*options) == 130
    left = copy / "data/scratch/pretrain-mhr-h4-s0.safetensors"
    before = left.read_bytes()
    assert run("align", "-m", "mhr", "--at", "checkpoint", "-C", copy) == 0
    assert left.read_bytes() == before
    written = record(copy, "mhr-h4-s0-checkpoint")
    assert (written["at"], written["step"]) == ("checkpoint", 3)
    assert run(*options) == 0
    with (copy / "data/metrics/pretrain/mhr-h4-s0.csv").open() as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["step"] == "3"]
    assert (float(row["shared"]), float(row["composed"])) == (written["shared"]["overall"], written["composed"]["overall"])
    assert run("align", "-m", "mhr", "--at", "checkpoint", "-C", copy) == 2  # the run has ended


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "mhrr"], "unknown method 'mhrr'; did you mean 'mhr'?"),
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
        (["-m", "lora", "--seed", 9], "lora-s9: no finished pretrain output; run `mhrctl pretrain lora-s9`"),
        (
            ["-m", "lora", "--at", "checkpoint"],
            "no run in progress of lora-s0 has left a checkpoint; use --at start or --at end",
        ),
        (["-m", "adapter_soup"], "--method adapter_soup: adapter_soup gives each training task an adapter of its own"),
        (["-m", "full_ft_then_lora"], "--method full_ft: full_ft tunes all weights and has no adapter; gradient alignment"),
        (["-m", "lora", "--tasks", 1], "--tasks 1: must be a whole number, 2 or more"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    assert run("align", *options, "-C", copy) == 2
    assert message in capfd.readouterr().err
    assert not (copy / "data/metrics/align").exists()


def test_one_training_task_is_one_line(project: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "last"):
        (project / f"tasks/training/{name}.jsonl").unlink()
    for stage in ("prepare", "backbone"):
        assert run(stage, "-C", project) == 0
    assert run("align", "-m", "lora", "--at", "start", "-C", project) == 2
    assert "error: training tasks: only copy; gradient alignment is between tasks" in capfd.readouterr().err


def test_an_adapter_of_another_backbone_is_one_line(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("backbone", "--set", "backbone.seed=7", "-C", copy) == 0
    assert run("align", "-m", "lora", "-C", copy) == 2
    assert "made for another backbone" in capfd.readouterr().err
