"""T0's test tasks: from few-shot sets and hub repositories made on disk, and from the real few-shot sets."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.errors import DataError
from mhrctl.suites.t0 import held_out as t0  # not from it: pytest takes `test_tasks` for a test
from mhrctl.suites.t0.few_shot import drawn_sets
from mhrctl.suites.task import Task

DATA = Path(__file__).parents[4] / "shared/data"
TEMPLATES = """\
    answer_choices: '{choices}'
    jinja: '{jinja} ||| {{{{answer_choices[0]}}}}'
    metadata: !TemplateMetadata
      original_task: {original}
    name: {name!r}
"""
TEXTS = {"rte": "{{premise}} {{hypothesis}}", "anli": "{{premise}} {{hypothesis}}", "winogrande": "{{sentence}}"}


def checkout(folder: Path, home: str, names: list[str], *, jinja: str, choices: str = "Yes ||| No") -> Path:
    """Templates of a data set: those named, and one that is no original task."""
    templates = [(name, "true") for name in names] + [("free", "false")]
    parts = [
        f"  t{number}: !Template\n" + TEMPLATES.format(choices=choices, jinja=f"{name}: {jinja}", original=original, name=name)
        for number, (name, original) in enumerate(templates)
    ]
    path = folder / f"templates/{home}/templates.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"dataset: d\nsubset: s\ntemplates:\n{''.join(parts)}")
    return folder


def rte(idx: int, **changes: Any) -> dict[str, Any]:
    return {"premise": f"p{idx}", "hypothesis": f"h{idx}", "label": idx % 2, "idx": idx} | changes


def few_shot(folder: Path, task: str, sets: dict[int, list[dict[str, Any]]]) -> Path:
    """Sets of raw records in T-Few's layout."""
    for seed, rows in sets.items():
        path = folder / f"few_shot/{task}/{len(rows)}_shot/{seed}_seed.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def hub(folder: Path, repository: str, config: str, splits: dict[str, list[dict[str, Any]]]) -> None:
    """A data set repository below the working directory, which `load_dataset` takes for the hub's."""
    home = folder / repository
    home.mkdir(parents=True)
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), home / f"{split}.parquet")
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
    (home / "README.md").write_text(f"---\nconfigs:\n- config_name: '{config}'\n  data_files:\n{files}---\n")


def read(**changes: Any) -> list[Task]:
    defaults: dict[str, Any] = {"few_shot": None, "promptsource": None, "seeds": [], "anli_shots": 50, "templates": "one"}
    return t0.test_tasks(**defaults | {"evaluation": "hub", "evaluation_seeds": [], "tasks": [], "seed": 42} | changes)


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """RTE with two templates: two overlapping few-shot sets, and an evaluation split."""
    few_shot(tmp_path, "rte", {1: [rte(4), rte(2)], 0: [rte(2), rte(8)]})
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/rte.jsonl").write_text("".join(f"{json.dumps(rte(idx))}\n" for idx in range(40)))
    promptsource = checkout(tmp_path, "super_glue/rte", ["then", "so"], jinja=TEXTS["rte"])
    return {"few_shot": tmp_path, "promptsource": promptsource, "evaluation": str(tmp_path / "splits"), "tasks": ["rte"]}


def test_a_record_has_every_template_in_training_and_one_when_scored(made: dict[str, Any]) -> None:
    (task,) = read(**made)
    assert (task.name, task.role, task.metric) == ("rte", "test", "accuracy")
    train = [example for example in task.examples if example.split == "train"]
    assert [(example.id, example.input, example.seeds, example.group) for example in train] == [
        ("train/2/so", "so: p2 h2", (0, 1), "train/2"),
        ("train/2/then", "then: p2 h2", (0, 1), "train/2"),
        ("train/8/so", "so: p8 h8", (0,), "train/8"),
        ("train/8/then", "then: p8 h8", (0,), "train/8"),
        ("train/4/so", "so: p4 h4", (1,), "train/4"),
        ("train/4/then", "then: p4 h4", (1,), "train/4"),
    ]
    scored = [example for example in task.examples if example.split == "test"]
    assert [example.group for example in scored] == [f"test/{idx}" for idx in range(40)]
    assert {example.seeds for example in scored} == {()}
    assert [example.targets for example in scored] == [("Yes",), ("No",)] * 20
    assert {example.choices for example in scored} == {("Yes", "No")}
    drawn = Counter(example.input.split(":")[0] for example in scored)
    assert min(drawn["so"], drawn["then"]) >= 10


def test_the_template_drawn_is_fixed_by_the_seed_and_all_can_be_had(made: dict[str, Any]) -> None:
    scored = {
        seed: [example.id for example in read(**made, seed=seed)[0].examples if example.split == "test"] for seed in (1, 2)
    }
    assert scored[1] == [example.id for example in read(**made, seed=1)[0].examples if example.split == "test"] != scored[2]
    every = [example.id for example in read(**made, templates="all")[0].examples if example.split == "test"]
    assert every == [f"test/{idx}/{name}" for idx in range(40) for name in ("so", "then")]


def test_seeds_are_chosen_and_missing_ones_named(made: dict[str, Any]) -> None:
    train = [example for example in read(**made, seeds=[1])[0].examples if example.split == "train"]
    assert {(example.group, example.seeds) for example in train} == {("train/2", (1,)), ("train/4", (1,))}
    with pytest.raises(DataError, match=r"rte/2_shot: no few-shot set of seed 42 \(it has 0, 1\)"):
        read(**made, seeds=[1, 42])


def test_a_trial_scores_the_records_of_other_seeds_that_are_not_trained_on(made: dict[str, Any]) -> None:
    made["evaluation"] = "nowhere, and not read"
    for seeds in ([0], []):
        (task,) = read(**made, seeds=seeds, evaluation_seeds=[1])
        groups = {split: {row.group for row in task.examples if row.split == split} for split in ("train", "test")}
        assert groups == {"train": {"train/2", "train/8"}, "test": {"test/4"}}
        assert {row.seeds for row in task.examples if row.split == "train"} == {(0,)}
    with pytest.raises(DataError, match=r"seed 1 is both to train on and to evaluate on"):
        read(**made, seeds=[0, 1], evaluation_seeds=[1])
    with pytest.raises(DataError, match=r"rte: the few-shot sets leave no record to train on; name other seeds"):
        read(**made, evaluation_seeds=[0, 1])
    few_shot(made["few_shot"], "rte", {7: [rte(8), rte(2)]})
    with pytest.raises(DataError, match=r"rte: the few-shot sets leave no record to evaluate on that is not trained on"):
        read(**made, seeds=[0], evaluation_seeds=[7])


def test_the_hub_gives_few_shot_sets_by_the_authors_draw_and_the_evaluation_split(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"train": [rte(idx) for idx in range(2490)], "validation": [rte(idx, premise="v") for idx in range(3)]}
    hub(tmp_path, "aps/super_glue", "rte", splits)
    monkeypatch.chdir(tmp_path)
    (task,) = read(**made | {"few_shot": None, "evaluation": "hub"}, seeds=[42])
    groups = list(dict.fromkeys(example.group for example in task.examples if example.split == "train"))
    assert (len(groups), groups[:3]) == (32, ["train/1057", "train/478", "train/976"])  # as T-Few published
    scored = [example.input.split(": ")[1] for example in task.examples if example.split == "test"]
    assert scored == ["v h0", "v h1", "v h2"]
    (task,) = read(**made, seeds=[0])
    assert sum(example.split == "test" for example in task.examples) == 40
    (Path(made["evaluation"]) / "rte.jsonl").unlink()
    (task,) = read(**made, seeds=[0])
    assert sum(example.split == "test" for example in task.examples) == 3
    with pytest.raises(DataError, match=r"drawn from the hub need seeds; the paper's are 42, 1024 and 0"):
        read(**made | {"few_shot": None})


def test_anli_has_50_shots_or_the_papers_32_and_is_scored_on_its_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [rte(idx, uid=f"u{idx}") for idx in range(200)]
    for row in rows:
        del row["idx"]
    splits = {f"{split}_r{number}": rows[: 60 * number] for number in (1, 2, 3) for split in ("train", "dev")}
    splits |= {f"test_r{number}": [rows[0] | {"premise": f"test of {number}"}] for number in (1, 2, 3)}
    hub(tmp_path, "facebook/anli", "plain_text", splits)
    monkeypatch.chdir(tmp_path)
    promptsource = checkout(tmp_path, "anli", ["so"], jinja=TEXTS["anli"], choices="Yes ||| Maybe ||| No")
    groups = {}
    for shots in (32, 50):
        tasks = read(promptsource=promptsource, seeds=[42, 0], anli_shots=shots, tasks=["anli-r3", "anli-r2"])
        assert [task.name for task in tasks] == ["anli-r2", "anli-r3"]
        groups[shots] = {
            (task.name, seed): [row.group for row in task.examples if seed in row.seeds] for task in tasks for seed in (42, 0)
        }
        assert {len(rows) for rows in groups[shots].values()} == {shots}
        assert [row.input for task in tasks for row in task.examples if row.split == "test"] == [
            "so: test of 2 h0",
            "so: test of 3 h0",
        ]
    published = drawn_sets(range(len(splits["train_r3"])), shots=50, seeds=[42])[42]
    few_shot(tmp_path, "anli-r3", {42: [rows[idx] | {"idx": idx} for idx in published]})
    (task,) = read(few_shot=tmp_path, promptsource=promptsource, seeds=[42], anli_shots=32, tasks=["anli-r3"])
    assert {row.group for row in task.examples if row.split == "train"} == set(groups[32]["anli-r3", 42])
    (task,) = read(few_shot=tmp_path, promptsource=promptsource, seeds=[42], anli_shots=50, tasks=["anli-r3"])
    assert sum(row.split == "train" for row in task.examples) == 50


def test_story_cloze_trains_on_validation_and_is_scored_on_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"input_sentence_1": f"s{n}", "sentence_quiz1": f"a{n}", "sentence_quiz2": f"b{n}", "answer_right_ending": 1 + n % 2}
        for n in range(80)
    ]
    hub(tmp_path, "LSDSem/story_cloze", "2016", {"validation": rows, "test": rows[:3]})
    monkeypatch.chdir(tmp_path)
    promptsource = checkout(
        tmp_path, "story_cloze/2016", ["so"], jinja="{{input_sentence_1}}", choices="{{sentence_quiz1}} ||| {{sentence_quiz2}}"
    )
    (task,) = read(promptsource=promptsource, seeds=[0], tasks=["storycloze"])
    assert sum(row.split == "train" for row in task.examples) == 70
    scored = [(row.input, row.targets, row.choices) for row in task.examples if row.split == "test"]
    assert scored == [
        ("so: s0", ("a0",), ("a0", "b0")),
        ("so: s1", ("b1",), ("a1", "b1")),
        ("so: s2", ("a2",), ("a2", "b2")),
    ]


def test_a_hub_that_cannot_be_reached_says_what_to_do_instead(made: dict[str, Any]) -> None:
    message = r"^rte \(aps/super_glue/rte/validation\): cannot be read from the hub: .*put rte.jsonl with its validation split"
    with pytest.raises(DataError, match=message):
        read(**made | {"evaluation": "hub"})
    with pytest.raises(DataError, match=r"^rte \(aps/super_glue/rte/train\): .*or name a folder of few-shot sets$"):
        read(**made | {"few_shot": None}, seeds=[0])


def test_winogrande_and_hellaswag_labels(tmp_path: Path) -> None:
    promptsource = checkout(
        tmp_path, "winogrande/winogrande_xl", ["so"], jinja="{{sentence}}", choices="{{option1}} ||| {{option2}}"
    )
    checkout(tmp_path, "hellaswag", ["so"], jinja="{{ctx}}", choices='{{endings | join(" ||| ")}}')
    row = {"sentence": "_ wins", "option1": "Ann", "option2": "Bob", "idx": 1}
    few_shot(tmp_path, "winogrande", {0: [row | {"answer": "2"}], 1: [row | {"idx": 2, "answer": "1"}]})
    row = {"ctx": "then", "endings": list("abcd")}
    few_shot(tmp_path, "h-swag", {0: [row | {"idx": 1, "label": "3"}], 1: [row | {"idx": 2, "label": 0}]})
    tasks = read(few_shot=tmp_path, promptsource=promptsource, evaluation_seeds=[1], tasks=["winogrande", "h-swag"])
    assert {task.name: [row.targets for row in task.examples] for task in tasks} == {
        "h-swag": [("d",), ("a",)],
        "winogrande": [("Bob",), ("Ann",)],
    }
    for answer, message in (
        ("", "answer '' is no label"),
        ("3", "answer '3' names none of 2 answer choices"),
        (None, "None is no"),
    ):
        few_shot(tmp_path, "winogrande", {0: [{"sentence": "x", "option1": "a", "option2": "b", "idx": 1, "answer": answer}]})
        with pytest.raises(DataError, match=rf"1_shot/0_seed.jsonl:1: .*{message}"):
            read(few_shot=tmp_path, promptsource=promptsource, evaluation_seeds=[1], tasks=["winogrande"])


def test_what_is_missing_or_wrong_is_named(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown T0 test task 'hswag'; did you mean 'h-swag'"):
        read(**made | {"tasks": ["hswag"]})
    with pytest.raises(DataError, match=r"0_seed.jsonl:1: a raw record, to be rendered with .*; give a checkout of bigscience"):
        read(**made | {"promptsource": None})
    with pytest.raises(DataError, match=r"nowhere: no such file or folder|nowhere: no such folder; give `hub`"):
        read(**made | {"evaluation": str(tmp_path / "nowhere")})
    (tmp_path / "splits/winogrand.jsonl").write_text("")
    with pytest.raises(DataError, match=r"winogrand.jsonl: unknown T0 test task 'winogrand'; did you mean 'winogrande'"):
        read(**made)
    (tmp_path / "splits/winogrand.jsonl").unlink()
    few_shot(tmp_path, "rte", {1: [rte(4), rte(2, premise="other")]})
    with pytest.raises(DataError, match=r"1_seed.jsonl:2: idx 2 is another record in .*0_seed.jsonl:1"):
        read(**made)
    few_shot(tmp_path, "rte", {1: [rte(4), {"premise": "x", "idx": 3, "label": 0}]})
    with pytest.raises(
        DataError, match=r"1_seed.jsonl:2: .*templates.yaml: template 'so' does not fit .*'hypothesis' is undefined"
    ):
        read(**made)


def test_copa_has_its_eight_templates_by_name(tmp_path: Path) -> None:
    assert len(t0.COPA_TEMPLATES) == 8
    promptsource = checkout(tmp_path, "super_glue/copa", [*t0.COPA_TEMPLATES, "…why? C1 or C2"], jinja="{{premise}}")
    few_shot(tmp_path, "copa", {0: [rte(0)], 1: [rte(1)]})
    (task,) = read(few_shot=tmp_path, promptsource=promptsource, evaluation_seeds=[1], tasks=["copa"], templates="all")
    assert {row.input.split(":")[0] for row in task.examples} == set(t0.COPA_TEMPLATES)
    checkout(tmp_path / "old", "super_glue/copa", list(t0.COPA_TEMPLATES[1:]), jinja="{{premise}}")
    with pytest.raises(DataError, match=r"super_glue/copa has no original-task template 'C1 or C2\? premise"):
        read(few_shot=tmp_path, promptsource=tmp_path / "old", evaluation_seeds=[1], tasks=["copa"])


def test_few_shot_sets_become_training_tasks_named_as_p3s_configurations(tmp_path: Path, made: dict[str, Any]) -> None:
    checkout(tmp_path, "anli", ["GPT-3 style"], jinja=TEXTS["anli"])
    few_shot(tmp_path, "anli-r2", {0: [rte(0)]})
    names = ["rte", "anli-r2"]
    tasks = t0.few_shot_training_tasks(tmp_path, names, promptsource=made["promptsource"], by="template")
    assert [(task.name, task.role, [row.id for row in task.examples]) for task in tasks] == [
        ("anli_GPT_3_style_r2", "training", ["0"]),
        ("super_glue_rte_so", "training", ["2", "8", "4"]),
        ("super_glue_rte_then", "training", ["2", "8", "4"]),
    ]
    assert {(row.split, row.group, row.seeds) for task in tasks for row in task.examples} == {(None, "", ())}
    tasks = t0.few_shot_training_tasks(tmp_path, names, promptsource=made["promptsource"], by="dataset")
    assert [(task.name, len(task.examples)) for task in tasks] == [("anli_r2", 1), ("super_glue_rte", 6)]
    assert len({row.id for row in tasks[1].examples}) == 6


def test_the_table_is_the_recipes() -> None:
    rows = {name: (task.repository, task.config, task.train, task.evaluation) for name, task in t0.T0_TEST_TASKS.items()}
    glue = {name: ("aps/super_glue", name, "train", "validation") for name in ("rte", "cb", "copa", "wic")}
    assert rows == glue | {
        "wsc": ("aps/super_glue", "wsc.fixed", "train", "validation"),
        "winogrande": ("allenai/winogrande", "winogrande_xl", "train", "validation"),
        "h-swag": ("Rowan/hellaswag", None, "train", "validation"),
        "storycloze": ("LSDSem/story_cloze", "2016", "validation", "test"),
        "anli-r1": ("facebook/anli", None, "train_r1", "test_r1"),
        "anli-r2": ("facebook/anli", None, "train_r2", "test_r2"),
        "anli-r3": ("facebook/anli", None, "train_r3", "test_r3"),
    }
    assert {name: task.shots for name, task in t0.T0_TEST_TASKS.items()} == dict.fromkeys(
        ("rte", "cb", "copa", "wic", "wsc"), 32
    ) | {"winogrande": 50, "h-swag": 20, "storycloze": 70, "anli-r1": 50, "anli-r2": 50, "anli-r3": 50}


def test_real_sets_are_the_same_raw_and_rendered_with_the_papers_templates() -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data is not there")
    templates = {"rte": 10, "cb": 15, "copa": 8, "wic": 10, "wsc": 10, "winogrande": 5, "h-swag": 4, "storycloze": 5}
    templates |= {"anli-r1": 15, "anli-r2": 15, "anli-r3": 15}
    options = {"seeds": [42, 1024, 0], "evaluation_seeds": [1, 32]}
    raw = read(few_shot=DATA / "t-few", promptsource=DATA / "promptsource", **options)
    rendered = read(few_shot=DATA / "t0-few-shot", **options)
    assert [task.name for task in raw] == [task.name for task in rendered] == sorted(templates)
    for ours, theirs in zip(raw, rendered, strict=True):
        rows = [row for row in ours.examples if row.split == "train"]
        assert {len({row.id for row in rows if row.group == group}) for group in {row.group for row in rows}} == {
            templates[ours.name]
        }
        same = [a == b for a, b in zip(ours.examples, theirs.examples, strict=True) if "Randomized prompts" not in a.id]
        assert all(same)
        assert len(same) > 200
    pattern = re.compile(r"Ending \d")
    hellaswag = next(task for task in raw if task.name == "h-swag")
    endings = [row.choices for row in hellaswag.examples if row.id.endswith("if_begins_how_continues")]
    assert endings
    assert all(pattern.fullmatch(choice) for choices in endings for choice in choices)


def test_two_files_of_one_tasks_records_are_rejected_and_hidden_ones_are_none(tmp_path: Path) -> None:
    for name in ("rte.jsonl", "._rte.jsonl"):
        (tmp_path / name).write_text('{"idx": 0}\n')
    assert len(t0._evaluation_records(t0.T0_TEST_TASKS["rte"], str(tmp_path))) == 1
    t0._check_evaluation(str(tmp_path))
    (tmp_path / "rte.parquet").write_text("x")
    with pytest.raises(DataError, match=r"rte.parquet: is of task rte, as .*rte.jsonl is; remove one of them"):
        t0._evaluation_records(t0.T0_TEST_TASKS["rte"], str(tmp_path))
