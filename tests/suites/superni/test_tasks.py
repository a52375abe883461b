"""Super-NaturalInstructions from a clone, a made-up one and a part of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from mhrctl.errors import DataError
from mhrctl.evaluation.text_scores import rouge_l
from mhrctl.suites.superni.tasks import Instance, drawn, named_tasks, read_superni
from mhrctl.suites.task import Suite

REAL = Path(__file__).parents[4] / "shared/data/natural-instructions"


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


def noted(suite: Suite) -> dict[str, int]:
    """The notes, but not those on the sizes of the split files, which are not upstream's."""
    return {what: count for what, count in suite.notes.items() if "in the split" not in what}


def test_roles_references_and_order(tmp_path: Path) -> None:
    suite = read_superni(clone(tmp_path))
    assert [(task.name, task.role, task.metric) for task in suite.tasks] == [
        ("task1_a", "training", "rouge_l"),
        ("task2_b", "test", "rouge_l"),
    ]
    assert [example.targets for example in suite.tasks[1].examples] == [("0", "0!"), ("1", "1!"), ("2", "2!")]


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
    assert noted(suite) == {
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
    assert noted(suite) == {"instance ids that occurred twice": 1}


def test_a_good_task_leaves_no_notes(tmp_path: Path) -> None:
    assert noted(read_superni(clone(tmp_path))) == {}


def test_tasks_that_are_not_used_are_named_with_the_reason(tmp_path: Path) -> None:
    clone(tmp_path)
    for name in ("task3_c", "task4_d"):
        (tmp_path / f"tasks/{name}.json").write_text("{}")
    assert read_superni(tmp_path).dropped == dict.fromkeys(("task3_c", "task4_d"), "in no split file")
    (tmp_path / "splits/default/excluded_tasks.txt").write_text("task4_d\ntask5_not_there\ntask4_d\n")
    assert read_superni(tmp_path).dropped == {"task3_c": "in no split file", "task4_d": "in excluded_tasks.txt"}


def full_clone(folder: Path, training: int) -> Path:
    """As many tiny tasks as upstream has, ten of them excluded."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits/default").mkdir(parents=True)
    content = json.dumps({"Definition": ["d"], "Instances": [{"id": "i", "input": "a", "output": ["b"]}]})
    numbers = iter(range(2000))
    for split, size in (("train", training), ("test", 119), ("excluded", 10)):
        names = [f"task{next(numbers):04}_x" for _ in range(size)]
        (folder / f"splits/default/{split}_tasks.txt").write_text("\n".join(names))
        for name in names:
            (folder / f"tasks/{name}.json").write_text(content)
    return folder


def test_a_full_clone_has_756_training_and_119_test_tasks(tmp_path: Path) -> None:
    suite = read_superni(full_clone(tmp_path, 756))
    roles = [task.role for task in suite.tasks]
    assert (roles.count("training"), roles.count("test"), len(suite.dropped)) == (756, 119, 10)
    assert suite.notes == {}


def test_a_later_split_of_757_is_noted(tmp_path: Path) -> None:
    suite = read_superni(full_clone(tmp_path, 757))
    assert len(suite.tasks) == 757 + 119
    assert suite.notes == {"training tasks in the split, where the paper's has 756": 757}


def test_the_named_lists_are_the_recipes() -> None:
    few, zero = named_tasks(["few_shot_20"]), named_tasks(["zero_shot_20"])
    assert len(set(few)) == len(set(zero)) == 20
    assert {name.split("_")[0] for name in set(few) & set(zero)} == {"task957", "task304", "task1161"}
    assert "task890_gcwd_classification" in set(zero) - set(few)
    assert len(named_tasks(["few_shot_20", "zero_shot_20", few[0]])) == 37


def test_names_stand_for_themselves_beside_lists() -> None:
    known = ["task1_a", *named_tasks(["few_shot_20"])]
    assert named_tasks([], known) == []
    assert named_tasks(["task1_a", "few_shot_20"], known) == known
    assert named_tasks(["mine"], ["mine"]) == ["mine"]


def test_unknown_lists_and_tasks_are_one_line() -> None:
    with pytest.raises(DataError, match=r"'few_shot'; did you mean 'few_shot_20'\? \(known: few_shot_20, zero_shot_20\)$"):
        named_tasks(["few_shot"])
    with pytest.raises(DataError, match=r"'task2_b'.* \(known: few_shot_20, zero_shot_20, task1_a\)$"):
        named_tasks(["task2_b"], ["task1_a"])
    with pytest.raises(DataError, match=r"19 of the 20 tasks of 'few_shot_20' .* first 'task1157_bard[^']*';"):
        named_tasks(["few_shot_20"], ["task1161_coda19_title_generation"])


def instances(number: int) -> list[dict[str, Any]]:
    return [{"id": f"i{n}", "input": f"say {n}", "output": [str(n)]} for n in range(number)]


def test_a_bound_is_on_training_tasks_alone(tmp_path: Path) -> None:
    clone(tmp_path, Instances=instances(9))
    (tmp_path / "tasks/task1_a.json").write_text((tmp_path / "tasks/task2_b.json").read_text())
    suite = read_superni(tmp_path, training_instances=4)
    training, test = suite.tasks
    ids = [example.id for example in training.examples]
    assert len(ids) == 4
    assert ids == sorted(ids)
    assert [example.id for example in test.examples] == [f"i{n}" for n in range(9)]
    assert noted(suite) == {"instances of training tasks that were not drawn": 5}


def test_what_is_drawn_is_spread_evenly_and_needs_no_order() -> None:
    every = [Instance(f"task1-{n:04}", "x", ["y"]) for n in range(2000)]
    chosen = drawn(every, 500)
    places = [every.index(instance) for instance in chosen]
    assert len(chosen) == 500
    assert places == sorted(places)
    assert all(90 < sum(part <= place < part + 500 for place in places) < 160 for part in range(0, 2000, 500))
    assert sorted(map(str, drawn(every[::-1], 500))) == sorted(map(str, chosen))
    assert drawn(drawn(every, 900), 500) == chosen
    assert drawn(every, None) == drawn(every, 5000) == every


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
        read_superni(clone(tmp_path, **changes), strict=True)


def test_numbers_as_ids_and_outputs_as_lists_are_read(tmp_path: Path) -> None:
    instances = [{"id": 7, "input": "a", "output": "x"}, {"id": 8, "input": "b", "output": ["y"]}]
    positives = [{"input": "p", "output": ["q", "r"]}, {"input": "s", "output": "t"}]
    suite = read_superni(clone(tmp_path, Instances=instances, **{"Positive Examples": positives}), strict=True)
    assert [example.id for example in suite.tasks[1].examples] == ["7", "8"]
    assert suite.tasks[1].positives == (("p", "q"), ("s", "t"))


def test_odd_records_are_counted_with_the_first_and_stop_nothing(tmp_path: Path) -> None:
    odd: list[Any] = [{"input": 3, "output": "x"}, "text", {"input": "\ud83d", "output": "x"}]
    positives: list[Any] = [{"input": "p", "output": 4}, {"input": "s", "output": "t"}]
    changes = {"Instances": [*odd, *instances(4)], "Positive Examples": positives}
    suite = read_superni(clone(tmp_path, **changes))
    assert [example.id for example in suite.tasks[1].examples] == ["i0", "i1", "i2", "i3"]
    assert suite.tasks[1].positives == (("s", "t"),)
    first = "tasks/task2_b.json: Instances.0.input: Input should be a valid string, not 3"
    assert noted(suite) == {
        f"records of Instances that cannot be read, left out, first {first}": 3,
        "records of Positive Examples that cannot be read, left out, first tasks/task2_b.json: "
        "Positive Examples.0.output: Input should be a valid list, not 4": 1,
    }
    with pytest.raises(DataError, match=r"/tasks/task2_b.json: Instances.0.input: Input should be a valid string, not 3$"):
        read_superni(tmp_path, strict=True)


def test_a_task_of_odd_records_is_dropped_with_the_reason(tmp_path: Path) -> None:
    odd = [{"input": "a", "output": number} for number in range(5)]
    suite = read_superni(clone(tmp_path, Instances=[*odd, *instances(4)]))
    assert [task.name for task in suite.tasks] == ["task1_a"]
    assert suite.dropped == {"task2_b": "5 of its 9 instances cannot be read"}


def test_files_beside_tasks_are_passed_over_and_named(tmp_path: Path) -> None:
    clone(tmp_path)
    for name in ("._task1_a.json", "README.md", "sub/task3_c.json", "task4_d.json~"):
        (tmp_path / "tasks" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "tasks" / name).write_text("{}")
    suite = read_superni(tmp_path)
    assert suite.dropped == {}
    assert noted(suite) == {
        "files without the ending .json passed over: README.md": 1,
        "hidden or backup files and folders passed over: ._task1_a.json, task4_d.json~": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"Definition": ["d"], "Instances": [' + "[" * 100_000, r"task2_b.json:1: JSON that is nested too deeply"),
        (
            '{"Instances": [],\n "Instances": []}',
            r"task2_b.json:1: key 'Instances' is there twice in one object; leave one out",
        ),
        ('{"Definition": ' + "1" * 5000 + "}", r"task2_b.json:1: a number of more than 4,300 digits"),
    ],
    ids=["nesting", "key", "digits"],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (clone(tmp_path) / "tasks/task2_b.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_superni(tmp_path)


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


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (clone(tmp_path) / "splits/default/test_tasks.txt").write_text("../tasks/task2_b\n")
    with pytest.raises(DataError, match=r"test_tasks.txt:1: '../tasks/task2_b' is no name of a task"):
        read_superni(tmp_path)


def test_every_real_task_is_used() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real tasks are not at {REAL}")
    suite = read_superni(REAL)
    roles = [task.role for task in suite.tasks]
    assert (roles.count("training"), roles.count("test"), suite.dropped) == (132, 14, {})


def test_rouge_l_is_rouge_scores_on_real_references() -> None:
    """A task's references as predictions for the next instance: the tokens, the stemmer and the F-measure of rouge-score."""
    if not REAL.is_dir():
        pytest.skip(f"the real tasks are not at {REAL}")
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    seen = set()
    for task in read_superni(REAL).tasks[::3]:
        for one, other in zip(task.examples[:10], task.examples[1:11], strict=True):
            prediction = other.targets[0]
            best = max(scorer.score(reference, prediction)["rougeL"].fmeasure for reference in one.targets)
            assert rouge_l(prediction, one.targets) == pytest.approx(100 * best, abs=1e-6)
            seen.add(best)
    assert len(seen) > 100  # most pairs are neither equal nor wholly different
