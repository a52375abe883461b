"""Stages that are called from Python write what their commands write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mhrctl
from mhrctl.artifacts.locking import locked
from tests.conftest import PARAMS, write_tasks


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_stage_writes_what_its_command_writes(walked: Path, project: Path) -> None:
    here = mhrctl.Project(project, quiet=True)
    outputs = [
        here.prepare(),
        here.backbone(),
        *(here.pretrain(cell) for cell in ("lora-s0", "mhr-h4", "mhr_z")),
        here.average("mhr_mu"),
        *(stage(cell) for cell in ("lora", "mhr_mu") for stage in (here.adapt, here.evaluate)),
        here.evaluate("backbone"),
    ]
    places = [output.folder.relative_to(project / "data").as_posix() for output in outputs]
    assert places == [
        "prepare",
        "backbone",
        "pretrain/lora-s0",
        "pretrain/mhr-h4-s0",
        "pretrain/mhr-h4-s0",  # which mhr_z starts from, and which is there
        "average/mhr-h4-s0",
        "adapt/lora-s0",
        "evaluate/lora-s0",
        "adapt/mhr_mu-h4-s0",
        "evaluate/mhr_mu-h4-s0",
        "evaluate/backbone",
    ]
    for output, place in zip(outputs, places, strict=True):
        assert bytes_in(output.folder) == bytes_in(walked / "data" / place)
        assert place == "/".join(filter(None, (output.stage, output.cell)))
        assert output.card["stage"] == output.stage
        assert output.card["files"].keys() <= set(bytes_in(output.folder))
    assert json.loads((project / "data/log/pretrain-lora-s0.json").read_text())["threads"] == 1


def test_settings_recipes_and_seeds_are_those_of_the_command(copy: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    here = mhrctl.Project(copy, quiet=True)
    output = here.pretrain("lora", seed=7, settings={"pretrain.steps": 3, "pretrain.lr": 1e-05}, together=1, off=["packing"])
    words = ["lora", "--seed", "7", "--set", "pretrain.steps=3", "--set", "pretrain.lr=0.00001", "--together", "1"]
    command = [sys.executable, "-m", "mhrctl", "pretrain", *words, "--off", "packing", "-C", str(other)]
    subprocess.run(command, check=True, capture_output=True)
    assert output.cell == "lora-s7"
    assert output.card["params"]["pretrain"]["steps"] == 3
    assert bytes_in(output.folder) == bytes_in(other / "data/pretrain/lora-s7")
    again = here.pretrain("lora-s7", settings={"pretrain.steps": 3, "pretrain.lr": 1e-05}, force=True)
    assert again == output


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda here: here.pretrain("mhr-h3-s0"), r"^cell mhr-h3-s0: 3 heads do not divide layer"),
        (lambda here: here.pretrain("mhrr"), r"^unknown cell 'mhrr'"),
        (lambda here: here.adapt("mhr", settings={"pretrain.steps": 3}), r"^--set pretrain.steps=3: this command reads"),
        (lambda here: here.adapt("mhr-h4-s5"), r"no finished pretrain output; run `mhrctl pretrain mhr-h4-s5`$"),
        (lambda here: here.evaluate("mhr", threads=-1), r"^--threads -1: must be a whole number"),
        (lambda here: here.evaluate("--help"), r"^unknown cell '--help'"),
        (lambda here: here.average("lora"), r"^--method lora: pre-training has no skills to average"),
        (lambda here: here.run("nothing@at-all"), r"project: not a DVC project; run `mhrctl init`"),
    ],
)
def test_what_cannot_run_is_said_in_the_line_of_the_command(
    copy: Path, call: Callable[[mhrctl.Project], object], message: str
) -> None:
    with pytest.raises(mhrctl.MhrctlError, match=message) as error:
        call(mhrctl.Project(copy, quiet=True))
    assert "\n" not in str(error.value)


def test_a_stage_waits_for_no_other_process_that_writes_its_output(copy: Path) -> None:
    code = f"import mhrctl; mhrctl.Project({str(copy)!r}).prepare(force=True)"
    with locked(copy / "data/prepare"):
        ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "mhrctl.errors.ArtifactError" in ran.stderr
    assert "another process" in ran.stderr or "is being written" in ran.stderr


@pytest.fixture
def small(tmp_path: Path) -> mhrctl.Project:
    """A project under DVC, of one cell."""
    write_tasks(tmp_path / "tasks")
    made = mhrctl.init(tmp_path / "study", tasks=tmp_path / "tasks", no_scm=True, quiet=True)
    text = PARAMS.partition("grid:")[0].replace("path: tasks", "path: ../tasks")
    (made.folder / "params.yaml").write_text(f"{text}grid:\n  seeds: [0]\n  methods: {{mhr: {{heads: [4]}}}}\n")
    return made


def test_everything_that_has_changed_is_run(small: mhrctl.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(mhrctl.ArtifactError, match="grid sync"):
        small.run()
    assert "changed  data/cells/index.yaml" in small.sync()
    assert small.sync() == []
    monkeypatch.setenv("PATH", os.defpath)  # as where an environment was not activated
    ran = small.run(jobs=2)
    assert set(ran.values()) == {"done"}
    assert "evaluate@mhr-h4-s0" in ran
    assert os.environ["PATH"] == os.defpath
    assert {result.cell for result in small.results()} == {"mhr-h4-s0", "backbone"}
    assert set(small.run("evaluate@mhr-h4-s0").values()) == {"unchanged"}
    task = small.folder.parent / "tasks/test/swap.jsonl"
    task.write_text("{}\n")
    with pytest.raises(mhrctl.RunError, match=r"^1 stage failed: prepare; see .*prepare.log$"):
        small.run()
