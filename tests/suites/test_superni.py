"""Super-NaturalInstructions from a clone, a made-up one and a part of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.superni import read_superni, superni_prompt

REAL = Path(__file__).parents[2].parent / "shared/data/natural-instructions"


def clone(folder: Path, **changes: Any) -> Path:
    """Two tasks in upstream's form; `changes` go over the second's content."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits/default").mkdir(parents=True)
    for split, name in (("train", "task1_a"), ("test", "task2_b")):
        content = {
            "Definition": ["Say it back"],
            "Positive Examples": [{"input": "hi", "output": "hi!", "explanation": ""}],
            "Instances": [{"id": f"{name}-{n}", "input": f"say {n}", "output": [f"{n}", f"{n}!"]} for n in range(3)],
        }
        (folder / f"tasks/{name}.json").write_text(json.dumps(content | (changes if split == "test" else {})))
        (folder / f"splits/default/{split}_tasks.txt").write_text(f"{name}\n")
    return folder


def test_roles_references_and_order(tmp_path: Path) -> None:
    suite = read_superni(clone(tmp_path))
    assert [(task.name, task.role, task.metric) for task in suite.tasks] == [
        ("task1_a", "training", "rouge_l"),
        ("task2_b", "test", "rouge_l"),
    ]
    assert [example.targets for example in suite.tasks[1].examples] == [("0", "0!"), ("1", "1!"), ("2", "2!")]


def test_the_prompt_is_the_recipes(tmp_path: Path) -> None:
    task = read_superni(clone(tmp_path)).tasks[0]
    assert superni_prompt(task, " what? ", task_name=False, definition=False, positives=0) == (
        "Now complete the following example -\nInput: what?\nOutput: "
    )
    assert superni_prompt(task, "x", task_name=True, definition=True, positives=1) == (
        "task1_a. Definition: Say it back.\n\n Positive Example 1 -\nInput: hi.\n Output: hi!\n"
        "Now complete the following example -\nInput: x.\nOutput: "
    )


def test_older_forms_are_read_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    instances = [
        {"input": "a", "output": "one"},
        {"id": "i", "input": " ", "output": ["x"]},
        {"id": "j", "input": "b", "output": [" "]},
        {"id": "k", "input": "c", "output": ["x", ""]},
        {"id": "k", "input": "d", "output": ["y"]},
    ]
    suite = read_superni(clone(tmp_path, Definition="As text", Instances=instances))
    task = suite.tasks[1]
    assert task.definition == "As text"
    assert [example.id for example in task.examples] == ["task2_b-0", "k", "k-4"]
    assert suite.notes == {
        "blank references": 1,
        "instances without an input": 1,
        "instances without a reference": 1,
        "instance ids that occurred twice": 1,
    }


def test_no_instance_is_lost_to_a_repeated_id(tmp_path: Path) -> None:
    instances = [{"id": name, "input": text, "output": "x"} for name, text in (("k-2", "a"), ("k", "b"), ("k", "c"))]
    suite = read_superni(clone(tmp_path, Instances=instances))
    inputs = {example.id: example.input for example in suite.tasks[1].examples}
    assert inputs == {"k-2": "a", "k": "b", "k-2-2": "c"}
    assert suite.notes == {"instance ids that occurred twice": 1}


def test_a_good_task_leaves_no_notes(tmp_path: Path) -> None:
    assert read_superni(clone(tmp_path)).notes == {}


def test_tasks_in_no_split_are_named(tmp_path: Path) -> None:
    (clone(tmp_path) / "tasks/task3_c.json").write_text("{}")
    assert read_superni(tmp_path).dropped == {"task3_c": "in no split file"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Instances": []}, r"task2_b.json: a task without instances"),
        ({"Instances": [{"input": "a"}]}, r"task2_b.json: Instances.0.output is missing"),
        ({"Instances": [{"input": "a", "output": [3]}]}, r"Instances.0.output.0: .* a valid string, not 3"),
        ({"Instances": ["a"]}, r"task2_b.json: Instances.0: should be a JSON object, not 'a'"),
        ({"Definition": []}, r"task2_b.json: Definition: List should have at least 1 item"),
        ({"Instances": [{"input": "", "output": ["x"]}]}, r"no instance has both an input and a reference"),
    ],
)
def test_malformed_tasks_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_superni(clone(tmp_path, **changes))


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder `tasks`; prepare.path must be a clone of"):
        read_superni(tmp_path / "nowhere")
    folder = clone(tmp_path / "clone")
    (folder / "tasks/task2_b.json").write_text('{"Definition": ["x"],\n oops}')
    with pytest.raises(DataError, match=r"task2_b.json:2: not valid JSON"):
        read_superni(folder)
    (folder / "tasks/task2_b.json").write_text("[]")
    with pytest.raises(DataError, match=r"task2_b.json: should be a JSON object, not \[\]$"):
        read_superni(folder)
    (folder / "tasks/task2_b.json").unlink()
    with pytest.raises(DataError, match=r"test_tasks.txt:1: there is no .*task2_b.json; remove the line or add"):
        read_superni(folder)
    (folder / "splits/default/test_tasks.txt").unlink()
    with pytest.raises(DataError, match=r"test_tasks.txt: no such file"):
        read_superni(folder)


def test_a_task_in_both_splits_is_refused(tmp_path: Path) -> None:
    (clone(tmp_path) / "splits/default/test_tasks.txt").write_text("task2_b\ntask1_a\n")
    with pytest.raises(DataError, match=r"test_tasks.txt:2: 'task1_a' was named before, in .*train_tasks.txt:1;"):
        read_superni(tmp_path)


def test_every_real_task_is_used() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real tasks are not at {REAL}")
    suite = read_superni(REAL)
    roles = [task.role for task in suite.tasks]
    assert (roles.count("training"), roles.count("test"), suite.dropped) == (132, 14, {})
