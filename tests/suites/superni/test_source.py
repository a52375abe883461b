"""The source `superni`: what of Super-NaturalInstructions is read, and what is looked at before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.config.resolve import load_params
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import silent
from mhrctl.suites.superni import source
from mhrctl.suites.task import Seen, TaskCounts

PROJECT = """\
prepare: {{source: superni, {prepare}, tokenizer: word}}
backbone: {{source: scratch}}
pretrain: {{steps: 1, batch_size: 1}}
adapt: {{steps: 1, batch_size: 1, shots: 1, evaluate_every: 1}}
evaluate: {{}}
grid: {{seeds: [0], methods: {{lora: }}}}
"""


def clone(root: Path, instances: int = 30) -> Path:
    for folder in ("tasks", "splits/default"):
        (root / "ni" / folder).mkdir(parents=True)
    for split, names in (("train", ["task001_a", "task002_b"]), ("test", ["task003_c", "task004_d"])):
        (root / f"ni/splits/default/{split}_tasks.txt").write_text("\n".join(names) + "\n")
        for name in names:
            content = {
                "Definition": ["Copy it"],
                "Instances": [{"id": f"{name}-{i}", "input": f"say {i}", "output": [f"{i}"]} for i in range(instances)],
            }
            (root / f"ni/tasks/{name}.json").write_text(json.dumps(content))
    return root


def params(**options: Any) -> PrepareParams:
    settings = {"source": "superni", "path": "ni", "tokenizer": "word", "examples": 5}
    return PrepareParams.model_validate(settings | options)


def check(root: Path, prepare: str) -> Seen:
    (root / "params.yaml").write_text(PROJECT.format(prepare=prepare))
    return source.check(load_params(root / "params.yaml").params, root, metrics=OVER_CHOICES)


def test_training_tasks_are_read_as_far_as_splits_can_take(tmp_path: Path) -> None:
    suite = source.read(params(), clone(tmp_path), metrics=OVER_CHOICES, track=silent)
    assert [(task.name, len(task.examples)) for task in suite.tasks] == [
        ("task001_a", 10),
        ("task002_b", 10),
        ("task003_c", 30),
        ("task004_d", 30),
    ]


def test_a_suite_brings_its_prompt_and_its_named_lists(tmp_path: Path) -> None:
    suite = source.read(params(task_name=True), clone(tmp_path), metrics=OVER_CHOICES, track=silent)
    assert suite.prompter is not None
    put = suite.prompter(suite.tasks[0], len, lambda text, longest: text[:longest])
    assert put("say 1") == ("task001_a. Definition: Copy it.\n\nNow complete the following example -\nInput: say 1.\nOutput: ")
    assert suite.named is not None
    assert suite.named(["task003_c"], ["task003_c", "task004_d"]) == ["task003_c"]
    with pytest.raises(DataError, match=r"20 of the 20 tasks of 'few_shot_20' are no test tasks of this suite"):
        suite.named(["few_shot_20"], ["task003_c"])


def test_the_tasks_of_split_files_are_there(tmp_path: Path) -> None:
    clone(tmp_path)
    assert check(tmp_path, "path: ni") == Seen(TaskCounts(2, 2, 2))
    assert check(tmp_path, "path: ni, test_tasks: [task003_c]") == Seen(TaskCounts(2, 2, 1))
    (tmp_path / "ni/tasks/task004_d.json").unlink()
    with pytest.raises(DataError, match=r"test_tasks.txt: names task004_d, but there is no"):
        check(tmp_path, "path: ni")
    with pytest.raises(DataError, match=r"train_tasks.txt: no such file; prepare.path must be a clone"):
        check(tmp_path, "path: nowhere")
    (tmp_path / "ni/tasks").rename(tmp_path / "elsewhere")  # as where split files link to a clone that is not there yet
    with pytest.raises(DataError, match=r"ni: no folder `tasks`; prepare.path must be a clone"):
        check(tmp_path, "path: ni")


def test_a_mirror_is_not_looked_at(tmp_path: Path) -> None:
    seen = check(tmp_path, "hub: jayelm/natural-instructions, test_tasks: [few_shot_20]")
    assert seen == Seen(TaskCounts(756, 756, 20), ("prepare.hub jayelm/natural-instructions",))
