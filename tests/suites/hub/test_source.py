"""The source `hub` from params.yaml to rows: which tasks there are, which are test tasks, and what is held of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from mhrctl.artifacts import provenance
from mhrctl.config.resolve import load_params
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import silent
from mhrctl.stages.prepare import prepare
from mhrctl.suites.hub import source
from mhrctl.suites.task import Seen, Suite, TaskCounts
from tests.conftest import Run
from tests.suites.hub.made import Stream, labelled, questions, save, write_csv, write_jsonl

BY_TASK = {"input": "question", "target": "answer", "task": "task"}
WHOLE = {"input": "question", "target": "answer"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def params(**options: Any) -> PrepareParams:
    settings = {"source": "hub", "path": "data.jsonl", "tokenizer": "bpe", "columns": BY_TASK, "examples": 4}
    return PrepareParams.model_validate(settings | options)


def check(root: Path, prepare: str) -> Seen:
    return source.check(load_params(project(root, prepare)).params, root, metrics=OVER_CHOICES)


def read(root: Path, **options: Any) -> Suite:
    return source.read(params(**options), root, metrics=OVER_CHOICES, track=silent)


def roles(suite: Suite) -> dict[str, str]:
    return {task.name: task.role for task in suite.tasks}


def prepared(root: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The rows of the task table by name."""
    table = prepare(params(**options), root=root, out=root / "out", scratch=root / "scratch")
    return {row["name"]: row for row in table["tasks"]}


def rows(root: Path, file: str) -> list[dict[str, Any]]:
    return pq.read_table(root / "out" / file).to_pylist()


def test_a_column_makes_tasks_and_those_that_are_named_are_test_tasks(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(36))
    table = prepared(tmp_path, test_tasks=["mul"])
    assert {name: (row["role"], row["metric"]) for name, row in table.items()} == {
        "add": ("training", "rouge_l"),
        "sub": ("training", "rouge_l"),
        "mul": ("test", "rouge_l"),
    }
    assert table["mul"]["splits"] == {"test": 4, "pool": 8}
    assert table["add"]["splits"]["train"] == 4
    training = rows(tmp_path, "training_tasks.parquet")
    assert {(row["prompt"], row["targets"][0]) for row in training} <= {
        (row["question"], row["answer"]) for row in questions(36) if row["task"] != "mul"
    }


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(300))
    written = []
    for _ in range(2):
        prepared(tmp_path, test_tasks=["mul"])
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()})
    assert written[0] == written[1]


def test_of_a_large_training_task_by_a_column_as_much_is_held_as_its_splits_take(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(300))
    suite = read(tmp_path, test_tasks=["mul"])
    assert {task.name: len(task.examples) for task in suite.tasks} == {"add": 8, "sub": 8, "mul": 100}
    assert suite.notes == {"rows of training tasks that were not drawn": 184}
    drawn = [int(example.id) for example in suite.tasks[0].examples]
    assert max(drawn) > 100  # from all over the data set
    assert read(tmp_path, test_tasks=["mul"], max_rows=12).notes == {}


def test_the_scored_rows_of_a_data_set_that_is_sorted_are_of_every_label(tmp_path: Path) -> None:
    save(tmp_path / "data", train=labelled(80), test=labelled(80))
    columns = {"input": "text", "target": "label", "task": "topic"}
    table = prepared(tmp_path, path="data", columns=columns, test_tasks=["tea"], examples=16)
    assert table["tea"]["splits"] == {"test": 16, "pool": 24}  # both splits have the same 40 texts
    assert table["tea"]["repeats"]["of_tests"] == 16
    assert table["tea"]["metric"] == table["rice"]["metric"] == "accuracy"
    test = [row for row in rows(tmp_path, "test_tasks.parquet") if row["split"] == "test"]
    assert set(Counter(row["targets"][0] for row in test)) == {"no", "yes"}
    assert {row["id"].partition("/")[0] for row in test} == {"test"}
    assert all(row["choices"] == ["no", "yes"] for row in test)


def test_a_data_set_is_one_streamed_task_beside_one_of_test_tasks(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "many.jsonl", [{"prompt": f"say {i}", "completion": f"it is {i}"} for i in range(100)])
    messages = [[{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"b{i}"}] for i in range(30)]
    write_jsonl(tmp_path / "few.jsonl", [{"messages": each} for each in messages])
    options = {"path": "many.jsonl", "columns": {}, "test": {"path": "few.jsonl"}}
    suite = read(tmp_path, **options)
    assert [(task.name, task.role, task.stream is None, len(task.examples)) for task in suite.tasks] == [
        ("many", "training", False, 0),
        ("few", "test", True, 30),
    ]
    table = prepared(tmp_path, **options)
    assert table["many"]["splits"] == {"train": 4, "validation": 4}
    assert table["many"]["unused"] == 92
    assert table["few"]["splits"] == {"test": 4, "pool": 26}
    assert all(row["prompt"].startswith("ask ") for row in rows(tmp_path, "test_tasks.parquet"))


def test_shards_of_a_killed_run_are_not_taken_for_those_of_an_edited_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [{"input": f"ask {i}", "target": "old"} for i in range(30)]
    write_jsonl(tmp_path / "few.jsonl", few)
    tokenizer = tmp_path / "tokenizer"
    options = {"path": "many.jsonl", "columns": {}, "test": {"path": "few.jsonl"}}

    def write(answer: str) -> None:
        write_jsonl(tmp_path / "many.jsonl", [{"input": f"say {i}", "target": answer} for i in range(100)])

    write("old")
    prepared(tmp_path, **options)
    (tmp_path / "out/tokenizer").rename(tokenizer)  # the same for both runs

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mhrctl.stages.prepare.copy_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, **options, tokenizer="tokenizer")
    assert list((tmp_path / "scratch").rglob("*.parquet"))
    write("new")
    prepared(tmp_path, **options, tokenizer="tokenizer")
    assert {row["targets"][0] for row in rows(tmp_path, "training_tasks.parquet")} == {"new"}


def test_the_same_data_set_gives_training_and_test_tasks_by_split(tmp_path: Path) -> None:
    write_csv(tmp_path / "data/train.csv", questions(40))
    write_csv(tmp_path / "data/test.csv", questions(30))
    suite = read(tmp_path, path="data", columns=WHOLE, test={"path": "data", "splits": {"train": "test"}})
    assert roles(suite) == {"data": "training", "data_test": "test"}
    assert len(suite.tasks[1].examples) == 30


def on_the_hub(monkeypatch: pytest.MonkeyPatch, **configs: dict[str, Stream]) -> list[Any]:
    """Stand in for the hub; the configuration `only` is that of a data set that has no others."""
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None = None, **options: Any) -> dict[str, Stream]:
        asked.append((name, config, options["revision"]))
        return configs[config or "only"]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_configurations_are_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {name: {"train": Stream(questions(30)), "test": Stream(questions(9))} for name in ("rte", "cb", "wic")}
    asked = on_the_hub(monkeypatch, **configs)
    options: dict[str, Any] = {"path": None, "hub": "a/glue", "revision": COMMIT, "config": [*configs], "columns": WHOLE}
    table = prepared(tmp_path, **options, test_tasks=["cb"])
    assert {name: row["role"] for name, row in table.items()} == {"rte": "training", "wic": "training", "cb": "test"}
    assert table["cb"]["splits"] == {"test": 4, "pool": 26}  # the scored rows stand in the split to train on too
    assert all(table[name]["repeats"]["of_tests"] == 4 for name in configs)
    assert asked == [("a/glue", name, COMMIT) for name in configs]
    on_the_hub(monkeypatch, **configs)
    suite = read(tmp_path, **options | {"columns": BY_TASK}, test_tasks=["cb_add", "wic_mul"])
    assert [name for name, role in roles(suite).items() if role == "test"] == ["cb_add", "wic_mul"]


def test_a_split_that_is_only_scored_is_not_read_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = Stream([{"question": "q", "answer": None}])
    few = {"train": Stream(questions(30)), "test": Stream(questions(9))}
    on_the_hub(monkeypatch, only={"train": Stream(questions(30)), "test": unlabelled}, few=few)
    read(tmp_path, path=None, hub="a/b", columns=WHOLE, test={"hub": "a/b", "config": "few"})
    assert unlabelled.read == 0
    with pytest.raises(DataError, match=r"^a/b, split test, row 1: column 'answer' is null, not a text"):
        read(tmp_path, path=None, hub="a/c", columns=WHOLE, test={"hub": "a/b"})


def test_the_metric_is_what_is_asked_for_if_it_can_be(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(36))
    assert {task.metric for task in read(tmp_path, test_tasks=["mul"], metric="exact_match").tasks} == {"exact_match"}
    with pytest.raises(DataError, match=r"data.jsonl, split train: prepare.metric accuracy needs answer choices"):
        read(tmp_path, test_tasks=["mul"], metric="accuracy")
    assert {task.metric for task in read(tmp_path, test_tasks=["mul"], metric="f1").tasks} == {"f1"}
    with pytest.raises(DataError, match=r"prepare.metric: unknown metric 'f2' \(known: rouge_l, exact_match"):
        read(tmp_path, test_tasks=["mul"], metric="f2")


def test_names_of_tasks_can_stand_in_file_names(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(36, ["math (pure)", "../law", "art"]))
    assert roles(read(tmp_path, test_tasks=["math (pure)"])) == {"art": "training", "law": "training", "math_pure": "test"}
    assert prepared(tmp_path, test_tasks=["math (pure)"])["math_pure"]["role"] == "test"
    write_jsonl(tmp_path / "data.jsonl", questions(36, ["a b", "a/b"]))
    with pytest.raises(DataError, match=r"tasks 'a b' and 'a/b' would both be named 'a_b'; rename one of them"):
        read(tmp_path, test_tasks=["a b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^prepare.test_tasks: name the test tasks among those of .*data.jsonl: add, mul, sub$"),
        ({"test_tasks": ["mull"]}, r"^prepare.test_tasks: unknown task 'mull'; did you mean 'mul'\? \(known: add, mul, sub\)"),
        ({"columns": WHOLE}, r"data.jsonl: is one task, 'data'; name the column of its tasks as prepare.columns.task"),
        ({"test": {"path": "data.jsonl"}, "test_tasks": ["div"]}, r"unknown task 'div' \(known: add, mul, sub\)"),
        ({"test_tasks": ["mul"], "splits": {"test": "dev"}}, r"unknown split 'dev' \(known: train\); set prepare.splits.test"),
        ({"test": {"path": "x.csv"}}, r"x.csv: no such file or folder"),
    ],
)
def test_which_tasks_are_test_tasks_must_be_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(36))
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_files_are_hashed_and_data_sets_of_the_hub_held_to_a_commit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions())
    for options, complete, parents in (
        ({}, True, ["tasks"]),
        ({"test": {"path": "few"}}, True, ["tasks", "test_tasks"]),
        ({"test": {"hub": "a/b"}}, False, ["tasks"]),
        ({"test": {"hub": "a/b", "revision": COMMIT}}, True, ["tasks"]),
        ({"path": None, "hub": "a/b"}, False, []),
        ({"path": None, "hub": "a/b", "revision": COMMIT}, True, []),
        ({"path": None, "hub": "a/b", "revision": COMMIT, "test": {"hub": "a/c"}}, False, []),
        ({"tokenizer": "a/b"}, False, ["tasks"]),
    ):
        made = provenance.of_prepare(params(**options), root=tmp_path)
        assert (made.is_complete, list(made.parents)) == (complete, parents)


PROJECT = """\
prepare: {{source: hub, {prepare}, tokenizer: word}}
backbone: {{source: scratch}}
pretrain: {{steps: 1, batch_size: 1}}
adapt: {{steps: 1, batch_size: 1, shots: 1, evaluate_every: 1}}
evaluate: {{}}
grid: {{seeds: [0], methods: {{lora: }}}}
"""


def project(root: Path, prepare: str) -> Path:
    path = root / "params.yaml"
    path.write_text(PROJECT.format(prepare=prepare))
    return path


def test_check_counts_reads_and_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "data.jsonl", questions(36))
    columns = f"columns: {json.dumps(BY_TASK)}"
    seen = check(tmp_path, f"path: data.jsonl, test_tasks: [mul], {columns}")
    assert (seen.tasks, seen.unchecked) == (TaskCounts(2, 2, 1), ())
    two = f"path: data.jsonl, test: {{path: data.jsonl, columns: {json.dumps(BY_TASK)}}}, columns: {json.dumps(WHOLE)}"
    bad = [*questions(36), {"question": "q", "answer": None}]
    assert check(tmp_path, two).tasks == TaskCounts(1, 1, 3)
    assert check(tmp_path, f"{two}, test_tasks: [add]").tasks == TaskCounts(1, 1, 1)
    write_jsonl(tmp_path / "more.jsonl", bad)
    fault = "more.jsonl, split train, row 37: column 'answer' is null"
    with pytest.raises(DataError, match=fault):
        check(tmp_path, f"{two.replace('data.jsonl', 'more.jsonl', 1)}, strict: true")
    ((what, count),) = check(tmp_path, two.replace("data.jsonl", "more.jsonl", 1)).notes.items()
    assert (fault in what, count) == (True, 1)
    monkeypatch.setattr(source, "READABLE", 10)
    seen = check(tmp_path, two.replace("data.jsonl", "more.jsonl", 1))
    assert seen.tasks is None
    assert sorted(seen.unchecked) == [f"the rows of {tmp_path / name}.jsonl, which are many" for name in ("data", "more")]
    with pytest.raises(DataError, match=r"no column 'text'"):
        check(tmp_path, "path: data.jsonl, columns: {input: text, target: answer}")
    asked = on_the_hub(monkeypatch)
    seen = check(tmp_path, "hub: a/b, test: {hub: a/c}")
    assert (seen.tasks, seen.unchecked, asked) == (None, ("prepare.hub a/b", "prepare.test.hub a/c"), [])


def test_a_new_project_prepares_its_example(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("init", tmp_path, "--source", "hub") == 0
    assert run("check", "-C", tmp_path) == 0
    assert "tasks: 3 to train on, 1 to test on" in capfd.readouterr().out
    assert run("prepare", "-C", tmp_path) == 0
    assert run("prepare", "-C", tmp_path) == 0
    assert "is up to date" in capfd.readouterr().err


def test_a_project_on_a_data_set_of_ones_own_says_what_it_still_needs(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "saved", only=Dataset.from_list(questions(36)))
    folder = tmp_path / "project"
    assert run("init", folder, "--source", "hub", "--path", tmp_path / "saved") == 0
    assert run("check", "-C", folder) == 2
    assert "set prepare.columns: it has the columns question, answer, task" in capfd.readouterr().err
    params_file = folder / "params.yaml"
    params_file.write_text(params_file.read_text().replace("columns: {}", f"columns: {json.dumps(BY_TASK)}"))
    assert run("check", "-C", folder) == 2
    assert "prepare.test_tasks: name the test tasks among those of" in capfd.readouterr().err
    params_file.write_text(params_file.read_text().replace("test_tasks: []", "test_tasks: [mul]"))
    assert run("grid", "sync", "-C", folder) == 0
    assert run("check", "-C", folder) == 0


def test_odd_rows_of_a_stream_are_counted_in_the_task_table(tmp_path: Path) -> None:
    rows = [{"input": f"say {i}", "target": "old" if i % 10 else None} for i in range(50)]
    write_jsonl(tmp_path / "many.jsonl", rows)
    write_jsonl(tmp_path / "few.jsonl", [{"input": f"ask {i}", "target": "old"} for i in range(30)])
    options: dict[str, Any] = {"path": "many.jsonl", "columns": {}, "test": {"path": "few.jsonl"}}
    table = prepare(params(**options), root=tmp_path, out=tmp_path / "out", scratch=tmp_path / "scratch")
    ((what, count),) = table["notes"].items()
    assert count == 5
    assert "many.jsonl, split train, row 1: column 'target' is null, not a text" in what
    with pytest.raises(DataError, match=r"many.jsonl, split train, row 1: column 'target' is null"):
        prepare(params(**options, strict=True), root=tmp_path, out=tmp_path / "out", scratch=tmp_path / "scratch")


def test_what_lies_beside_the_files_of_a_folder_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "data/train.csv", questions(36))
    for name in ("._train.csv", "notes.txt"):
        (tmp_path / "data" / name).write_text("x")
    suite = read(tmp_path, path="data", test_tasks=["mul"])
    assert suite.notes["hidden or backup files and folders passed over: ._train.csv"] == 1
    (what,) = (what for what in suite.notes if what.startswith("files without"))
    assert what.endswith(" passed over: notes.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/more").symlink_to("../elsewhere")
    with pytest.raises(
        DataError, match=r"data/more: is a link to a folder, which `datasets` does not follow; put its files here"
    ):
        read(tmp_path, path="data", test_tasks=["mul"])
    (tmp_path / "data/more").unlink()
    os.mkfifo(tmp_path / "data/test.csv")
    with pytest.raises(DataError, match=r"data/test.csv: is a pipe"):
        read(tmp_path, path="data", test_tasks=["mul"])
    with pytest.raises(DataError, match=r"data/test.csv: is a pipe"):
        read(tmp_path, path="data/test.csv", test_tasks=["mul"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question": "\\ud83d", "answer": "b", "task": "add"}',
            r"data.jsonl:3: text '\\ud83d' holds half of a surrogate pair",
        ),
        ('{"question": "x"', r"data.jsonl:3: not valid JSON"),
        ("[" * 100_000, r"data.jsonl:3: JSON that is nested too deeply"),
        ("[]", r"data.jsonl: cannot be read: "),
    ],
    ids=["surrogate", "json", "nesting", "list"],
)
def test_json_lines_that_cannot_be_read_are_named_by_line(
    tmp_path: Path, line: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", questions(36))
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, test_tasks=["mul"])
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
