"""The user's own tasks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhrctl.errors import DataError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.suites.jsonl import NoRoleError, read_jsonl
from mhrctl.suites.task import Suite

GOOD: dict[str, Any] = {"input": "a", "target": "b"}


PIECES = [
    b'{"input": "a"',
    b', "target": ',
    b'"b"',
    b"}",
    b"\n",
    b"\xff",
    b'"\\ud83d"',
    b"NaN",
    b"[",
    b', "id": 3',
    b', "task": "x"',
    b"\0",
]
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
        (GOOD | {"output": "b"}, r"one.jsonl:2: unknown key 'output'; did you mean 'target'\?$"),
        ({"inputs": "a", "Label": "b"}, r"one.jsonl:2: unknown keys 'inputs', 'Label'; did you mean 'input', 'target'\?$"),
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


def test_named_tasks_are_test_tasks_if_nothing_says_a_role(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write(tmp_path / f"{name}.jsonl", GOOD)
    suite = read_jsonl(tmp_path, metrics=OVER_CHOICES, tests=["two"])
    assert {task.name: task.role for task in suite.tasks} == {"one": "training", "two": "test", "three": "training"}
    with pytest.raises(DataError, match=r"^prepare.test_tasks: unknown task 'tow'; did you mean 'two'\?"):
        read_jsonl(tmp_path, metrics=OVER_CHOICES, tests=["tow"])
    with pytest.raises(NoRoleError, match=r"no test task; name some as prepare.test_tasks, mark lines with") as raised:
        read_jsonl(tmp_path, metrics=OVER_CHOICES)
    assert (raised.value.names, raised.value.examples) == (["one", "three", "two"], 3)
    write(tmp_path / "three.jsonl", GOOD | {"role": "training"})
    with pytest.raises(NoRoleError, match=r"no test task; mark lines with") as raised:
        read_jsonl(tmp_path, metrics=OVER_CHOICES, tests=["two"])
    assert raised.value.names == []


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"input": "\\ud83d", "target": "b"}', r"one.jsonl:2: text '\\ud83d' holds half of a surrogate pair"),
        (b'{"input": "a", "target": "b", "id": ' + b"9" * 5000 + b"}", r"one.jsonl:2: a number of more than 4,300 digits"),
        (b"[" * 100_000, r"one.jsonl:2: JSON that is nested too deeply"),
        (b'{"input": "a", "target": NaN}', r"one.jsonl:2: not valid JSON: NaN is no number"),
        (
            b'{"input": "a", "target": "b", "target": "c"}',
            r"one.jsonl:2: key 'target' is there twice in one object; leave one out",
        ),
        (b'{"input": "a\0", "target": "b"}', r"one.jsonl:2: not valid JSON"),
        (b'{"input": "\xe9", "target": "b"}', r"one.jsonl:2: not UTF-8 text"),
    ],
    ids=["surrogate", "digits", "nesting", "nan", "key", "nul", "latin-1"],
)
def test_what_is_no_line_of_a_task_is_named_by_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path / "test/two.jsonl", GOOD)
    (tmp_path / "one.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n" + content)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_mark_at_the_beginning_of_a_file_is_read_over(tmp_path: Path) -> None:
    write(tmp_path / "test/two.jsonl", GOOD)
    (tmp_path / "one.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert read(tmp_path).tasks[0].examples[0].input == "a"


def test_hidden_files_are_no_tasks_and_links_are(tmp_path: Path) -> None:
    for name in ("training/one", "test/two", "training/.ipynb_checkpoints/one-checkpoint", "test/._two", "elsewhere/three"):
        write(tmp_path / f"{'tasks/' if name != 'elsewhere/three' else ''}{name}.jsonl", GOOD)
    (tmp_path / "tasks/training/extra").symlink_to("../../elsewhere")
    suite = read(tmp_path / "tasks")
    assert [(task.name, task.role) for task in suite.tasks] == [("one", "training"), ("three", "training"), ("two", "test")]
    assert suite.notes == {
        "hidden or backup files and folders passed over: test/._two.jsonl, training/.ipynb_checkpoints": 2,
        "linked folders followed, in which `dvc repro` sees no edits: training/extra": 1,
    }
    (tmp_path / "tasks/training").rename(tmp_path / "linked")
    (tmp_path / "linked/extra").unlink()
    (tmp_path / "tasks/training").symlink_to("../linked")
    assert [task.name for task in read(tmp_path / "tasks").tasks] == ["one", "two"]


@pytest.mark.parametrize("folder", ["Test", "TEST", "tests", "testing", "Training"])
def test_a_folder_that_is_nearly_named_for_a_role_is_rejected(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "one.jsonl", GOOD)
    write(tmp_path / folder / "two.jsonl", GOOD)
    role = "training" if folder == "Training" else "test"
    with pytest.raises(DataError, match=rf"two.jsonl: lies in a folder `{folder}`, .*; rename it to `{role}`$"):
        read(tmp_path)


def test_two_files_of_one_name_are_not_merged(tmp_path: Path) -> None:
    write(tmp_path / "test/two.jsonl", GOOD)
    write(tmp_path / "training/a/one.jsonl", GOOD)
    write(tmp_path / "training/b/one.jsonl", GOOD)
    with pytest.raises(
        DataError, match=r"b/one.jsonl:1: task 'one' is also in .*a/one.jsonl; rename one of the files, or name"
    ):
        read(tmp_path)
    write(tmp_path / "training/b/one.jsonl", GOOD | {"task": "one"})
    with pytest.raises(DataError, match=r"b/one.jsonl:1: task 'one' is also in"):
        read(tmp_path)
    write(tmp_path / "training/a/one.jsonl", GOOD | {"task": "one"})
    assert [(task.name, len(task.examples)) for task in read(tmp_path).tasks] == [("one", 2), ("two", 1)]


def test_what_else_lies_in_a_folder_without_tasks_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one.json", GOOD)
    with pytest.raises(DataError, match=r"no .jsonl files in it \(files without the ending .jsonl .*: one.json \(1\)\); set"):
        read(tmp_path)


@given(st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_any_file_is_read_or_rejected_by_name(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "training/one.jsonl", GOOD)
        write(root / "test/two.jsonl", "")
        (root / "test/two.jsonl").write_bytes(content)
        said = f"{root}: read"
        try:
            assert len(read(root).tasks) >= 2
        except DataError as error:
            said = str(error)
        assert str(root) in said
        assert "\n" not in said


def test_missing_roles_files_and_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .jsonl files in it; set prepare.path"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"no such file or folder"):
        read(tmp_path / "nowhere")
    write(tmp_path / "one.jsonl", GOOD)
    with pytest.raises(
        DataError, match=r'no test task; name some as prepare.test_tasks, mark lines with "role": "test" or put'
    ):
        read(tmp_path)
    write(tmp_path / "test/two.jsonl", "")
    with pytest.raises(DataError, match=r"two.jsonl: a task without examples"):
        read(tmp_path)
    (tmp_path / "test/two.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(DataError, match=r"two.jsonl:1: not UTF-8 text"):
        read(tmp_path)
