"""The hub's mirrors of Super-NaturalInstructions, in folders of the same form."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import DataError
from mhrctl.progress import Bar
from mhrctl.suites.superni.hub import MIRRORS, read_mirror, read_superni_hub
from mhrctl.suites.superni.tasks import read_superni
from mhrctl.suites.task import Suite

REAL = Path(__file__).parents[4] / "shared/data/natural-instructions"
PLAIN, WITH_EXAMPLES = "Muennighoff/natural-instructions", "jayelm/natural-instructions"


def row(task: str, id_: str, text: str, target: str, **more: Any) -> dict[str, Any]:
    return {"task_name": task, "id": id_, "definition": f"do {task}", "inputs": text, "targets": target, **more}


def more(first: bool = False) -> dict[str, Any]:
    """The further columns of the mirror with worked examples."""
    positive = {"pos_0_input": "in", "pos_0_output": "out", "pos_0_explanation": "", "pos_1_input": None, "pos_1_output": None}
    return {"eval": first, **positive, "neg_0_input": "never"}


def write(folder: Path, **files: list[dict[str, Any]]) -> Path:
    """Files such as `train_task1`; a mirror has a file a task, and a card."""
    for name, rows in files.items():
        split, task = name.split("_", 1)
        path = folder / split / f"{task}_{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (folder / "README.md").write_text("---\nlanguage: [en]\n---\n")
    return folder


def small(folder: Path) -> Path:
    """Two training tasks whose rows are mixed, and two test tasks."""
    return write(
        folder,
        train_task1=[
            row("task2_b", "b-0", "x", "1"),
            row("task1_a", "a-0", "2018-09-03", "2018-09-04"),
            row("task2_b", "b-0", "x", "2"),
            row("task1_a", "a-1", "line\u2028separator", "é"),
            row("task2_b", "b-1", "y", "3"),
            row("task2_b", "b-0", "x", "1"),
        ],
        test_task3=[row("task3_c", "c-0", "12", "5")],
        test_task4=[row("task4_d", "d-0", "12", "5")],
    )


def read(folder: Path, mirror: str = PLAIN, *test_tasks: str, limit: int | None = None) -> Suite:
    return read_mirror(str(folder), MIRRORS[mirror], test_tasks=test_tasks, training_instances=limit)


def test_rows_become_instances_with_references_in_order(tmp_path: Path) -> None:
    suite = read(small(tmp_path))
    assert [(task.name, task.role, task.definition) for task in suite.tasks] == [
        ("task1_a", "training", "do task1_a"),
        ("task2_b", "training", "do task2_b"),
        ("task3_c", "test", "do task3_c"),
        ("task4_d", "test", "do task4_d"),
    ]
    assert [(example.id, example.input, example.targets) for example in suite.tasks[1].examples] == [
        ("b-0", "x", ("1", "2", "1")),
        ("b-1", "y", ("3",)),
    ]


def test_texts_stay_as_they_are(tmp_path: Path) -> None:
    """Dates, numbers and line separators are text, whatever a reader of JSON or of lines would make of them."""
    examples = read(small(tmp_path)).tasks[0].examples
    assert [(example.input, example.targets[0]) for example in examples] == [
        ("2018-09-03", "2018-09-04"),
        ("line\u2028separator", "é"),
    ]


def test_only_the_named_test_tasks_are_kept(tmp_path: Path) -> None:
    suite = read(small(tmp_path), PLAIN, "task4_d")
    assert [task.name for task in suite.tasks] == ["task1_a", "task2_b", "task4_d"]
    assert suite.dropped == {"task3_c": "not in prepare.test_tasks"}
    with pytest.raises(DataError, match=r"unknown test task 'task9_z'.* \(known: task3_c, task4_d\) in .*/test$"):
        read(tmp_path, PLAIN, "task9_z")


def test_sizes_of_the_splits_are_noted(tmp_path: Path) -> None:
    assert read(small(tmp_path), PLAIN, "task4_d").notes == {
        "training tasks in the split, where the paper's has 756": 2,
        "test tasks in the split, where the paper's has 119": 2,
    }


def test_ids_that_occur_twice_lose_no_instance(tmp_path: Path) -> None:
    rows = [row("task1_a", "k", text, "x") for text in ("a", "b", "a")]
    suite = read(write(tmp_path, train_task1=rows, test_task3=[row("task3_c", "c", "x", "y")]))
    assert [(example.id, example.input, example.targets) for example in suite.tasks[0].examples] == [
        ("k", "a", ("x", "x")),
        ("k-1", "b", ("x",)),
    ]
    assert suite.notes["instance ids that occurred twice"] == 1


def test_worked_examples_and_marked_first_instances(tmp_path: Path) -> None:
    rows = [row("task3_c", f"c-{n}", f"say {n}", "y", **more(first=n in {2, 3})) for n in range(5)]
    task = read(write(tmp_path, train_task1=[row("task1_a", "a", "x", "y", **more())], test_task3=rows), WITH_EXAMPLES).tasks[1]
    assert task.positives == (("in", "out"),)
    assert [example.id for example in task.examples] == ["c-2", "c-3", "c-0", "c-1", "c-4"]


def upstream(folder: Path, tasks: dict[str, list[tuple[str, str, list[str]]]], test: str) -> Path:
    """A clone of the same instances: (id, input, outputs)."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits/default").mkdir(parents=True)
    for name, instances in tasks.items():
        content = {
            "Definition": [f"do {name}"],
            "Instances": [{"id": id_, "input": text, "output": outputs} for id_, text, outputs in instances],
        }
        (folder / f"tasks/{name}.json").write_text(json.dumps(content))
    training = [name for name in tasks if name != test]
    (folder / "splits/default/train_tasks.txt").write_text("\n".join(training))
    (folder / "splits/default/test_tasks.txt").write_text(test)
    return folder


@pytest.mark.parametrize("limit", [None, 1, 7, 40])
@pytest.mark.parametrize("together", [True, False])
def test_a_bound_keeps_what_it_keeps_of_a_clone(tmp_path: Path, together: bool, limit: int | None) -> None:
    """Also where instances that were left out on the way come again, with another reference."""
    instances = [(f"i-{n}", f"say {n}", [str(n), f"{n}!"]) for n in range(40)]
    clone = upstream(tmp_path / "clone", {"task1_a": instances, "task3_c": instances}, "task3_c")
    rows = [(id_, text, output) for id_, text, outputs in instances for output in outputs]
    names = {"train_task1": "task1_a", "test_task3": "task3_c"}
    spread = rows if together else rows[::2] + rows[1::2]
    files = {file: [row(name, *fields) for fields in spread] for file, name in names.items()}
    ours = read(write(tmp_path / "mirror", **files), limit=limit)
    theirs = read_superni(clone, training_instances=limit)
    assert ours.tasks == theirs.tasks
    if together:
        assert ours.notes == theirs.notes


@pytest.mark.parametrize("mirror", [PLAIN, WITH_EXAMPLES])
def test_real_tasks_are_the_same_from_a_mirror_and_from_a_clone(tmp_path: Path, mirror: str) -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real tasks are not at {REAL}")
    for split, names in (("train", ["task059_ropes_story_generation", "task388_torque_token_classification"]), ("test", None)):
        lines = (REAL / f"splits/default/{split}_tasks.txt").read_text().split()
        for name in names or lines[:2]:
            content = json.loads((REAL / f"tasks/{name}.json").read_text())
            rows = []
            for number, instance in enumerate(content["Instances"]):
                for output in instance["output"]:
                    new = row(name, instance["id"], instance["input"], output) | {"definition": content["Definition"][0]}
                    if mirror == WITH_EXAMPLES:
                        new["eval"] = number < (100 if split == "test" else 15)
                        for place in range(2):
                            positive = content["Positive Examples"][place]
                            new |= {f"pos_{place}_{part}": positive[part] for part in ("input", "output", "explanation")}
                    rows.append(new)
            write(tmp_path, **{f"{split}_{name}": rows})
    ours = read(tmp_path, mirror)
    theirs = {task.name: task for task in read_superni(REAL).tasks}
    assert len(ours.tasks) == 4
    for task in ours.tasks:
        expected = theirs[task.name]
        assert task.examples == expected.examples
        assert (task.role, task.metric, task.definition) == (expected.role, expected.metric, expected.definition)
        assert task.positives == (expected.positives[:2] if mirror == WITH_EXAMPLES else ())


def test_progress_is_a_step_a_task(tmp_path: Path) -> None:
    seen: list[str] = []

    class Seen:
        def advance(self, steps: int = 1, note: str = "") -> None:
            seen.append(note * steps)

        def resume(self, steps: int) -> None:
            raise AssertionError(f"nothing was done before, not {steps}")

    def track(description: str, total: int, **_about: str) -> AbstractContextManager[Bar]:
        seen.append(f"{Path(description).name} {total}")
        return nullcontext(Seen())

    read_mirror(str(small(tmp_path)), MIRRORS[PLAIN], test_tasks=(), training_instances=None, track=track)
    assert seen == ["test 119", "task3_c", "task4_d", "train 756", "task2_b", "task1_a"]


@pytest.mark.parametrize(
    ("mirror", "rows", "message"),
    [
        (PLAIN, [row("task1_a", "a", "x", "y") | {"targets": None}], r"/train: row 1: targets: .* a valid string, not None$"),
        (PLAIN, [{"task_name": "task1_a"}], r"/train: row 1: id is missing$"),
        (WITH_EXAMPLES, [row("task1_a", "a", "x", "y")], r"/train: row 1: eval is missing$"),
        (PLAIN, [row("../a", "a", "x", "y")], r"/train: row 1: '../a' is no name of a task"),
        (PLAIN, [row("task1_a", "a", "x", " ")], r"/train: task1_a: no instance has both an input and a reference$"),
        (PLAIN, [row("task3_c", "c", "x", "y")], r"task 'task3_c' occurs twice"),
    ],
)
def test_malformed_rows_are_one_line(tmp_path: Path, mirror: str, rows: list[dict[str, Any]], message: str) -> None:
    write(tmp_path, train_task1=rows, test_task3=[row("task3_c", "c", "x", "y", **more())])
    with pytest.raises(DataError, match=message):
        read(tmp_path, mirror)


def test_odd_rows_are_counted_or_rejected(tmp_path: Path) -> None:
    rows = [row("task1_a", f"a-{n}", f"say {n}", "y") for n in range(3)]
    odd = row("task1_a", "b", "x", "y") | {"targets": 3}
    write(tmp_path, train_task1=[rows[0], odd, *rows[1:]], test_task3=[row("task3_c", "c", "x", "y")])
    suite = read(tmp_path)
    assert [example.id for example in suite.tasks[0].examples] == ["a-0", "a-1", "a-2"]
    first = f"{tmp_path}/train: row 2: targets: Input should be a valid string, not 3"
    assert suite.notes[f"rows of train that cannot be read, left out, first {first}"] == 1
    with pytest.raises(DataError, match=r"/train: row 2: targets: Input should be a valid string, not 3$"):
        read_mirror(str(tmp_path), MIRRORS[PLAIN], test_tasks=(), training_instances=None, strict=True)


def test_half_of_a_surrogate_pair_is_an_odd_row(tmp_path: Path) -> None:
    rows = [row("task1_a", f"a-{n}", f"say {n}", "y") for n in range(3)]
    write(tmp_path, train_task1=rows, test_task3=[row("task3_c", "c", "x", "y")])
    path = tmp_path / "train/task1_train.jsonl"
    path.write_text(path.read_text().replace("say 1", "say \\ud83d"))
    suite = read(tmp_path)
    assert [example.id for example in suite.tasks[0].examples] == ["a-0", "a-2"]
    assert [count for what, count in suite.notes.items() if what.startswith("rows of train that cannot be read")] == [1]


def test_what_is_not_json_is_one_line(tmp_path: Path) -> None:
    (small(tmp_path) / "train/task1_train.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"/train: row 1: Invalid JSON: "):
        read(tmp_path)


def test_what_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_superni_hub(PLAIN, revision="main")
    assert re.fullmatch(
        r"hf://datasets/Muennighoff/natural-instructions@main/test: cannot be read from the hub: .*; check revision and .*",
        str(error.value),
    )
    with pytest.raises(DataError, match=r"/test: holds no JSON Lines; check the revision, or use a clone of upstream$"):
        read(tmp_path)


def test_what_a_mirror_has_not_is_said_before_it_is_read() -> None:
    with pytest.raises(DataError, match=r"unknown mirror of Super-NaturalInstructions 'x/y' \(known: Muennighoff/.*, jayelm/"):
        read_superni_hub("x/y", revision="main")
    with pytest.raises(DataError, match=r"^Muennighoff/natural-instructions: has no positive examples a task, not the 1 of "):
        read_superni_hub(PLAIN, revision="main", positives=1)
    with pytest.raises(DataError, match=r"^jayelm/natural-instructions: has 2 positive examples a task, not the 3 of "):
        read_superni_hub(WITH_EXAMPLES, revision="main", positives=3)
