"""`mhrctl check --deep`: what cannot be relied on is named, with the command that makes it again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mhrctl.artifacts.names import CARD, Project
from mhrctl.artifacts.placing import old_of
from mhrctl.config.resolve import load_params
from mhrctl.tools.verify import Fault, Verified, verify_project
from tests.conftest import Run

ADAPTED = "adapt/mhr-h4-s0"
MHR = "mhr-h4-s0"


def look(folder: Path) -> Verified:
    return verify_project(load_params(folder / "params.yaml"), Project(folder))


def flip(file: Path, place: int = -20) -> None:
    """Flip a bit, and keep size and time."""
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[place] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_project_as_it_was_written_has_no_problem(walked: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    verified = look(walked)
    assert verified.problems == []
    assert (verified.outputs, verified.metrics) == (2 + 3 + 1 + 5 + 6, 6 + 3)
    assert verified.files > verified.outputs
    assert run("check", "--deep", "-C", walked) == 0
    assert "17 outputs with" in capsys.readouterr().err


def rename(folder: Path) -> None:
    shutil.rmtree(folder / "data/adapt/poly-s0")
    shutil.copytree(folder / "data" / ADAPTED, folder / "data/adapt/poly-s0")


def other_scores(folder: Path) -> None:
    shutil.copyfile(folder / "data/metrics/evaluate/poly-s0.json", folder / "data/metrics/evaluate/lora-s0.json")


def edited_number(folder: Path) -> None:
    file = folder / "data/metrics/evaluate/lora-s0.json"
    record = json.loads(file.read_text())
    record["zero_shot"]["score"] = 99.0
    file.write_text(json.dumps(record, indent=1) + "\n")


def other_settings(folder: Path) -> None:
    file = folder / "params.yaml"
    file.write_text(file.read_text().replace("adapt:\n  shots: 3", "adapt:\n  shots: 2"))


def without_card(folder: Path) -> None:
    (folder / "data" / ADAPTED / CARD).unlink()


@pytest.mark.parametrize(
    ("damage", "fault", "path", "command"),
    [
        (
            lambda p: flip(p / "data" / ADAPTED / "adapters.safetensors"),
            Fault.ROTTEN,
            f"{ADAPTED}/adapters.safetensors",
            f"mhrctl adapt {MHR}",
        ),
        (lambda p: flip(p / "data" / ADAPTED / CARD, 100), Fault.ROTTEN, f"{ADAPTED}", f"mhrctl adapt {MHR}"),
        (
            lambda p: (p / "data/prepare/tokenizer/tokenizer.json").unlink(),
            Fault.ROTTEN,
            "prepare/tokenizer/tokenizer.json",
            "mhrctl prepare",
        ),
        (lambda p: flip(p / "data/backbone/model.safetensors"), Fault.ROTTEN, "backbone/model.safetensors", "mhrctl backbone"),
        (
            lambda p: flip(p / "data/metrics/pretrain/lora-s0.csv"),
            Fault.ROTTEN,
            "metrics/pretrain/lora-s0.csv",
            "mhrctl pretrain lora-s0",
        ),
        (edited_number, Fault.ROTTEN, "metrics/evaluate/lora-s0.json", "mhrctl evaluate lora-s0"),
        (
            lambda p: (p / "data" / ADAPTED / "notes.txt").write_text("mine"),
            Fault.FOREIGN,
            f"{ADAPTED}/notes.txt",
            "move it away",
        ),
        (rename, Fault.FOREIGN, "adapt/poly-s0", "mhrctl adapt poly-s0"),
        (other_scores, Fault.ROTTEN, "metrics/evaluate/lora-s0.json", "mhrctl evaluate lora-s0"),
        (without_card, Fault.UNFINISHED, ADAPTED, f"mhrctl adapt {MHR}"),
        (lambda p: old_of(p / "data/backbone").mkdir(), Fault.UNFINISHED, ".backbone.old", "the same command removes it"),
        (other_settings, Fault.STALE, "adapt/lora-s0", "mhrctl adapt lora-s0"),
    ],
)
def test_each_fault_is_named_with_its_remedy(
    copy: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    fault: Fault,
    path: str,
    command: str,
) -> None:
    damage(copy)
    problem = next(each for each in look(copy).problems if each.path == copy / "data" / path)
    assert problem.fault is fault
    assert command in problem.line
    assert "\n" not in problem.line
    capsys.readouterr()
    assert run("check", "--deep", "-C", copy) == 2
    said = capsys.readouterr()
    assert f"{fault:<11}{copy}" in said.out
    assert f"1 {fault}" in said.err or "stale" in said.err


def test_what_was_made_of_another_parent_is_stale(copy: Path, run: Run) -> None:
    tasks = copy / "tasks/training/copy.jsonl"
    tasks.write_text(tasks.read_text().replace("ant", "owl"))
    assert run("prepare", "-C", copy) == 0
    stale = {
        problem.path.relative_to(copy / "data").as_posix() for problem in look(copy).problems if problem.fault is Fault.STALE
    }
    assert {"backbone", "pretrain/lora-s0", "adapt/poly-s0", "evaluate/poly-s0"} <= stale
    assert "prepare" not in stale
