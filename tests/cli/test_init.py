"""`mhrctl init` as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from mhrctl.config.sources import SOURCES
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]
DATA = Path(__file__).parents[2].parent / "shared/data"


@pytest.mark.parametrize("suite", ["compositional", "jsonl"])
def test_a_new_project_passes_check(tmp_path: Path, run: Run, capfd: Capture, suite: str) -> None:
    folder = tmp_path / "project"
    assert run("init", folder, "--suite", suite) == 0
    said = capfd.readouterr().err
    assert f"made {folder} (git init is not done; see README.md); its settings are in params.yaml\n" in said
    assert f"  cd {folder}\n  mhrctl check\n  mhrctl run" in said
    assert said.endswith("\n  mhrctl report\n")
    assert run("check", "-C", folder) == 0


@pytest.mark.parametrize("suite", ["superni", "t0"])
def test_a_study_passes_check_once_its_tasks_are_there(tmp_path: Path, run: Run, capfd: Capture, suite: str) -> None:
    if not DATA.exists():
        pytest.skip("../shared/data is not there")
    assert run("init", tmp_path, "--suite", suite) == 0
    assert run("check", "-C", tmp_path) == 2
    assert {"superni": "natural-instructions", "t0": "t-few/data"}[suite] in capfd.readouterr().err
    for name in ("t-few", "promptsource/promptsource", "evaluation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "natural-instructions").symlink_to(DATA / "natural-instructions")
    (tmp_path / "t-few/data").symlink_to(DATA / "t-few")
    (tmp_path / "promptsource/promptsource/templates").symlink_to(DATA / "promptsource/templates")
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("[few_shot_20]", "[]"))  # a part of a clone has not all of them
    assert run("check", "-C", tmp_path) == 0


def test_what_is_to_be_fetched_is_said_first(tmp_path: Path, run: Run, capfd: Capture) -> None:
    assert run("init", tmp_path, "--suite", "superni", "--backbone", "google/t5-v1_1-small") == 0
    lines = [line.strip() for line in capfd.readouterr().err.splitlines()]
    assert lines[lines.index("next:") + 2].startswith("git clone --depth 1 https://github.com/allenai/natural-instructions")
    assert "name: google/t5-v1_1-small" in (tmp_path / "params.yaml").read_text()


def test_what_libraries_log_of_a_backbone_is_not_shown(tmp_path: Path) -> None:
    """In a process of its own, since a library speaks once, when it is first imported."""
    for task in ("old", "new"):
        (tmp_path / f"tasks/{task}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"tasks/{task}.jsonl").write_text('{"input": "a", "target": "b"}\n' * 6)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    words = ["init", "study", "--path", "tasks", "--test", "new", "--backbone", "model", "--no-scm"]
    done = subprocess.run([sys.executable, "-m", "mhrctl", *words], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stderr.startswith("found 1 training and 1 test tasks, 12 examples in tasks\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "p3"], "--suite: unknown suite 'p3' (known: compositional, superni, t0, jsonl, hub)"),
        (["--path", "nowhere"], "--path nowhere: no such file or folder"),
        ([], "params.yaml: is in the way and will not be overwritten"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, run: Run, capfd: Capture, options: list[str], message: str
) -> None:
    (tmp_path / "params.yaml").write_text("mine")
    assert run("init", tmp_path, *options) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_templates_are_in_the_package() -> None:
    names = {path.name for path in (files("mhrctl.projects") / "files").iterdir()}
    assert names >= {f"{suite}.yaml.jinja" for suite in SOURCES} | {"dvc.yaml.jinja", "README.md.jinja", "curves.json", "tasks"}
