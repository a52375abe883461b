"""The DVC pipeline: what an edit makes run again, as `dvc status` and `dvc repro --dry` tell it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).parents[1]


def dvc(project: Path, *arguments: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def pipeline(copy: Path) -> Path:
    """The walked project under DVC, everything up to date."""
    shutil.copy(ROOT / "dvc.yaml", copy)
    dvc(copy, "init", "--no-scm", "-q")
    dvc(copy, "commit", "-f", "-q")
    return copy


def stages_to_run(project: Path) -> set[str]:
    """Stages that changed themselves; what hangs on them follows."""
    return {stage.split("@")[0] for stage in re.findall(r"^([a-z@_0-9-]+):$", dvc(project, "status"), re.MULTILINE)}


def edit(project: Path, run: Run, old: str, new: str) -> None:
    params = project / "params.yaml"
    assert old in params.read_text()
    params.write_text(params.read_text().replace(old, new))
    assert run("grid", "sync", "-C", project) == 0


def test_an_edit_reruns_only_what_hangs_on_it(pipeline: Path, run: Run) -> None:
    assert stages_to_run(pipeline) == set()
    edit(pipeline, run, "evaluate:\n  max_new_tokens: 4", "evaluate:\n  max_new_tokens: 5")
    assert stages_to_run(pipeline) == {"evaluate", "evaluate-backbone"}
    planned = set(re.findall(r"stage '([a-z-]+)", dvc(pipeline, "repro", "--dry", "--force-downstream")))
    assert planned.isdisjoint({"pretrain", "average", "adapt", "backbone"}), planned
    edit(pipeline, run, "evaluate:\n  max_new_tokens: 5", "evaluate:\n  max_new_tokens: 4")
    assert stages_to_run(pipeline) == set()


def test_the_index_and_extra_steps_rerun_what_hangs_on_them(walked_all: Path, tmp_path: Path, run: Run) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    params = project / "params.yaml"
    text = params.read_text().replace("    lora:\n", "    lora: {extra_steps: [3]}\n")
    text = text.replace("    mhr: {heads: [4]}", "    mhr: {heads: [4], variants: [plain, light]}")
    params.write_text(text.replace("mhr_mu: {heads: [4]}", "mhr_mu: {heads: [4], extra_steps: [3]}"))
    assert run("grid", "sync", "-C", project) == 0
    shutil.copy(ROOT / "dvc.yaml", project)
    dvc(project, "init", "--no-scm", "-q")
    dvc(project, "commit", "-f", "-q")
    assert stages_to_run(project) == set()
    edit(project, run, "index:\n  examples: 9", "index:\n  examples: 8")
    assert stages_to_run(project) == {"index"}
    edit(project, run, "index:\n  examples: 8", "index:\n  examples: 9")
    edit(project, run, "extra_steps: [3]}\n    poly", "extra_steps: [4]}\n    poly")
    assert stages_to_run(project) == {"pretrain-extra", "evaluate-zero-shot", "report"}


def test_a_methods_rate_reruns_its_cells_only(pipeline: Path, run: Run) -> None:
    edit(pipeline, run, "    mhr: {heads: [4]}", "    mhr: {heads: [4], pretrain: {lr: 0.5}}")
    changed = re.findall(r"^([a-z]+@[a-z_0-9-]+):$", dvc(pipeline, "status"), re.MULTILINE)
    assert changed == ["pretrain@mhr-h4-s0"]


def test_a_new_seed_runs_its_own_cells_only(pipeline: Path, run: Run) -> None:
    edit(pipeline, run, "seeds: [0]", "seeds: [0, 1]")
    changed = set(re.findall(r"^([a-z]+)(?:@[a-z_0-9-]+-(s\d))?:$", dvc(pipeline, "status"), re.MULTILINE))
    assert changed == {(stage, "s1") for stage in ("pretrain", "average", "adapt", "evaluate")} | {("report", "")}
