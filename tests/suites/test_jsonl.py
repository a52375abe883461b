"""The user's own tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.jsonl import read_jsonl
from mhrctl.suites.task import Suite

GOOD: dict[str, Any] = {"input": "a", "target": "b"}


METRICS = {"rouge_l": False, "exact_match": False, "accuracy": True}


def read(path: Path) -> Suite:
    return read_jsonl(path, metrics=METRICS)


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_one_file_a_task_with_roles_from_folders(tmp_path: Path) -> None:
    write(tmp_path / "training/one.jsonl", GOOD | {"definition": "do it"}, "", {"input": "c", "targets": ["d", "e"]})
    write(tmp_path / "test/two.jsonl", GOOD | {"choices": ["b", "c"], "split": "test", "id": "x"})
    first, second = read(tmp_path).tasks
    assert (first.name, first.role, first.metric, first.definition) == ("one", "training", "rouge_l", "do it")
    assert [example.targets for example in first.examples] == [("b",), ("d", "e")]
    assert (second.name, second.role, second.metric) == ("two", "test", "accuracy")
    assert (second.examples[0].id, second.examples[0].split, second.examples[0].choices) == ("x", "test", ("b", "c"))


def test_one_file_with_a_task_field(tmp_path: Path) -> None:
    lines = [GOOD | {"task": "t"}, GOOD | {"task": "u", "role": "test"}, GOOD | {"task": "t"}]
    path = write(tmp_path / "all.jsonl", *lines)
    assert [(task.name, task.role, len(task.examples)) for task in read(path).tasks] == [
        ("t", "training", 2),
        ("u", "test", 1),
    ]


def test_roles_come_from_folders_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "test/group/two.jsonl", GOOD)
    write(tmp_path / "training/one.jsonl", GOOD)
    assert [(task.name, task.role) for task in read(tmp_path).tasks] == [("one", "training"), ("two", "test")]
    write(tmp_path / "test/three.jsonl", GOOD | {"role": "training"})
    with pytest.raises(DataError, match=r"three.jsonl:1: role 'training' in a folder `test`; change one of them"):
        read(tmp_path)


def test_line_separators_inside_a_text_end_no_line(tmp_path: Path) -> None:
    write(tmp_path / "training/one.jsonl", '{"input": "a\u2028b\x85c", "target": "d"}')
    write(tmp_path / "test/two.jsonl", GOOD)
    assert read(tmp_path).tasks[0].examples[0].input == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input": "a", }', r"one.jsonl:2: not valid JSON: .*\(column \d+\)"),
        ({"input": "a"}, r"one.jsonl:2: give either `target` \(a string\) or `targets`"),
        (GOOD | {"targets": ["b"]}, r"one.jsonl:2: give either `target`"),
        ({"target": "b"}, r"one.jsonl:2: input is missing"),
        (GOOD | {"output": "b"}, r"one.jsonl:2: unknown key 'output'"),
        (GOOD | {"input": 3}, r"one.jsonl:2: input: Input should be a valid string, not 3"),
        ({"input": "a", "target": " "}, r"one.jsonl:2: a target is empty"),
        (GOOD | {"choices": ["c"]}, r"one.jsonl:2: target 'b' is not one of the choices \['c'\]"),
        (GOOD | {"split": "dev"}, r"one.jsonl:2: split: Input should be 'train', 'validation' or 'test'"),
        (GOOD | {"role": "test"}, r"one.jsonl:2: role 'test' differs from 'training' earlier in the same task"),
        (GOOD | {"task": "../up"}, r"one.jsonl:2: task name '../up' may hold letters, digits"),
        (GOOD | {"task": ""}, r"one.jsonl:2: task name '' may hold .* must begin with a letter or a digit"),
        (GOOD | {"id": "one-0"}, r"one.jsonl:2: id 'one-0' occurs twice in task one"),
        ("3", r"one.jsonl:2: should be a JSON object, not 3"),
        (
            GOOD | {"metric": "exact"},
            r"one.jsonl:2: unknown metric 'exact'; did you mean 'exact_match'\? \(known: ",
        ),
        (GOOD | {"metric": "accuracy"}, r"one.jsonl:2: metric 'accuracy' is over answer choices; give `choices`, or another"),
        (GOOD | {"metric": 3}, r"one.jsonl:2: metric: Input should be a valid string, not 3"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    write(tmp_path / "one.jsonl", GOOD, line)
    write(tmp_path / "test/two.jsonl", GOOD)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_metric_that_one_line_names_is_the_tasks(tmp_path: Path) -> None:
    chosen = GOOD | {"choices": ["b", "c"]}
    write(tmp_path / "training/one.jsonl", GOOD, GOOD | {"metric": "exact_match"}, GOOD)
    write(tmp_path / "test/two.jsonl", chosen | {"metric": "accuracy"}, chosen)
    write(tmp_path / "test/three.jsonl", chosen | {"metric": "rouge_l"})  # choices may stand there and not be chosen from
    assert {task.name: task.metric for task in read(tmp_path).tasks} == {
        "one": "exact_match",
        "two": "accuracy",
        "three": "rouge_l",
    }
    write(tmp_path / "test/two.jsonl", chosen | {"metric": "rouge_l"}, chosen, chosen | {"metric": "accuracy"})
    with pytest.raises(DataError, match=r"two.jsonl:3: metric 'accuracy' differs from 'rouge_l' earlier in the same task"):
        read(tmp_path)


def test_missing_roles_files_and_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .jsonl files in it; set prepare.path"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"no such file or folder"):
        read(tmp_path / "nowhere")
    write(tmp_path / "one.jsonl", GOOD)
    with pytest.raises(DataError, match=r'no test task; mark lines with "role": "test" or put'):
        read(tmp_path)
    write(tmp_path / "test/two.jsonl", "")
    with pytest.raises(DataError, match=r"two.jsonl: a task without examples"):
        read(tmp_path)
    (tmp_path / "test/two.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(DataError, match=r"two.jsonl:1: not UTF-8 text"):
        read(tmp_path)
