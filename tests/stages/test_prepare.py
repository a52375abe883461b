"""prepare: rows, splits, prompts, lengths, counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.config.tasks import PrepareParams
from mhrctl.data.shards import write_shard
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import DataError
from mhrctl.stages.prepare import prepare, prompt_of
from mhrctl.suites.task import Task


def params(**options: Any) -> PrepareParams:
    settings: dict[str, Any] = {"source": "jsonl", "path": "tasks", "tokenizer": "word", "examples": 4}
    return PrepareParams(**settings | options)


def rows(out: Path, file: str) -> list[dict[str, Any]]:
    return pq.read_table(out / file).to_pylist()


def test_splits_and_the_task_table(project: Path) -> None:
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    by_name = {row["name"]: row for row in table["tasks"]}
    assert by_name["copy"]["splits"] == {"train": 4, "validation": 2}  # too few for 4 beyond 25: a fifth is held out
    assert by_name["swap"]["splits"] == {"test": 4, "pool": 8}
    assert by_name["copy"]["unused"] == 6
    test = [row for row in rows(project / "out", "test_tasks.parquet") if row["task"] == "swap" and row["split"] == "test"]
    assert [row["id"] for row in test] == [f"swap-{number}" for number in range(4)]
    assert json.loads((project / "out" / "tasks.json").read_text()) == table


def test_rows_hold_prompt_tokens_and_lengths(project: Path) -> None:
    prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    tokenizer = saved_tokenizer(project / "out" / "tokenizer")
    for row in rows(project / "out", "training_tasks.parquet"):
        assert row["prompt"].startswith(f"{row['task']}\n\n")
        assert row["input_ids"] == tokenizer(row["prompt"])["input_ids"]
        assert row["input_tokens"] == len(row["input_ids"])
        assert row["target_ids"][0][-1] == tokenizer.eos_token_id
        assert row["target_tokens"] == max(map(len, row["target_ids"]))


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, "Name the capital.\n\nFrance"),
        ({"task_name": True}, "capital\n\nName the capital.\n\nFrance"),
        ({"definition": False}, "France"),
        ({"prompt": "{definition}: {input}"}, "Name the capital.: France"),
        ({"prompt": "Q: {input}\nA:"}, "Q: France\nA:"),
        ({"framing": "causal"}, "Name the capital.\n\nFrance\nOutput:"),
        ({"framing": "causal", "prompt": "{definition}\nQ: {input}\nA:"}, "Name the capital.\nQ: France\nA:"),
    ],
    ids=str,
)
def test_prompts_of_the_users_tasks_follow_a_template(options: dict[str, Any], prompt: str) -> None:
    task = Task("capital", "test", "rouge_l", "Name the capital.", [])
    assert prompt_of(task, params(**options), None, None)("France") == prompt


def test_a_template_goes_over_a_sources_wording_and_no_other_source_changes() -> None:
    task = Task("capital", "test", "rouge_l", "Name the capital.", [], positives=(("Italy", "Rome"),))
    asked = {"source": "superni", "path": "clone", "positive_examples": 1}
    put = prompt_of(task, params(**asked, prompt="{definition}\n\n{input} ->"), partial(_never, "wording"), None)
    assert put("France") == "Name the capital.\n\nItaly -> Rome\n\nFrance ->"
    assert prompt_of(task, params(**asked), partial(_never, "wording"), None)("France") == "wording"
    assert prompt_of(task, params(source="compositional", path=None), None, None)("[1]") == "Name the capital.: [1]"


def _never(said: str, *_: object) -> Callable[[str], str]:
    return lambda _: said


def test_two_runs_write_the_same_bytes(project: Path) -> None:
    for name in ("a", "b"):
        prepare(params(), root=project, out=project / name, scratch=project / "scratch")
    for path in sorted((project / "a").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (project / "b" / path.relative_to(project / "a")).read_bytes(), path


def test_long_inputs_are_cut_with_their_end_kept_and_counted(project: Path) -> None:
    table = prepare(params(max_input_tokens=3), root=project, out=project / "out", scratch=project / "scratch")
    assert all(row["cut_inputs"] == sum(row["splits"].values()) for row in table["tasks"])
    assert {len(row["input_ids"]) for row in rows(project / "out", "test_tasks.parquet")} == {3}
    assert {row["input_ids"][-1] for row in rows(project / "out", "test_tasks.parquet")} == {1}


def test_splits_that_the_user_gives_are_kept(project: Path) -> None:
    lines = [
        {"input": f"{split} {number}", "target": "ant", "split": split}
        for split in ("train", "validation", "test")
        for number in range(3)
    ]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    for row in rows(project / "out", "test_tasks.parquet"):
        if row["task"] == "swap":
            assert row["split"] in row["prompt"]


def test_a_task_too_small_for_three_splits_is_named(project: Path) -> None:
    (project / "tasks/test/small.jsonl").write_text('{"input": "a", "target": "b"}\n')
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert table["dropped"] == {"small": "has too few examples (1) for train, validation and test"}


def write_lines(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def said(numbers: list[int], word: str = "ant") -> list[dict[str, Any]]:
    return [{"input": f"fox {number}", "target": word} for number in numbers]


def test_texts_of_test_rows_are_kept_out_of_pools_and_of_training_and_counted(project: Path) -> None:
    write_lines(project / "tasks/test/swap.jsonl", *said([*range(12), 0, 1, 11, 11]))
    leaks = [{"definition": "in other words", **line} for line in said([2, 3, 100, 101, 102])]
    write_lines(project / "tasks/training/copy.jsonl", *leaks)
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    by_name = {row["name"]: row for row in table["tasks"]}
    assert by_name["swap"]["splits"] == {"test": 4, "pool": 8}
    assert by_name["swap"]["repeats"] == {"of_tests": 2, "of_tests_kept": 0, "in_pool": 2, "in_tests": 0}
    assert by_name["swap"]["unused"] == 0
    assert by_name["copy"]["repeats"]["of_tests"] == 2
    training = [row for row in rows(project / "out", "training_tasks.parquet") if row["task"] == "copy"]
    assert sorted(row["prompt"].rpartition(" ")[2] for row in training) == ["100", "101", "102"]
    assert by_name["first"]["repeats"] == by_name["twice"]["repeats"] == dict.fromkeys(by_name["swap"]["repeats"], 0)


def test_a_task_set_as_training_and_test_task_is_dropped_from_training(project: Path) -> None:
    write_lines(project / "tasks/training/copy.jsonl", *said([*range(3)]))
    write_lines(project / "tasks/test/swap.jsonl", *said([*range(12)]))
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert table["dropped"] == {"copy": "has no example to train on: 3 of 3 are equal to test examples"}


def test_repeats_that_leave_no_test_task_say_why(project: Path) -> None:
    (project / "tasks/test/twice.jsonl").unlink()
    write_lines(project / "tasks/test/swap.jsonl", *said([0] * 12))
    message = r"suite jsonl: no test tasks are left; swap has too few examples \(12\) .*: 8 of 12 are equal to test examples"
    with pytest.raises(DataError, match=message):
        prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert not (project / "out").exists()


def test_words_that_the_tokenizer_does_not_know_are_counted(project: Path) -> None:
    lines = [*said([*range(10)]), {"input": "fox 10", "target": "uno"}, {"input": "fox 11", "targets": ["due", "ant"]}]
    write_lines(project / "tasks/test/swap.jsonl", *lines)
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    by_name = {row["name"]: row for row in table["tasks"]}
    assert by_name["swap"]["unknown"] == {"inputs": 12, "targets": 2, "choices": 0, "unsayable": 1, "alike": 0}
    assert set(by_name["first"]["unknown"].values()) == {0}


def test_choices_that_the_tokenizer_cannot_tell_apart_are_rejected(project: Path) -> None:
    lines = [{"input": f"fox {number}", "target": "ant", "choices": ["ant", "bee"]} for number in range(12)]
    lines[7] |= {"id": "odd", "target": "uno", "choices": ["due", "uno"]}
    write_lines(project / "tasks/test/swap.jsonl", *lines)
    message = r"^test task swap, example odd: the choices 'uno', which is right, and 'due' are the same tokens \(so in 1 of 12 "
    with pytest.raises(
        DataError, match=message + r"examples\); set a prepare.tokenizer that knows its words.*; this is 'word'$"
    ):
        prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert not (project / "out").exists()
    write_lines(project / "tasks/test/swap.jsonl", *(line | {"metric": "rouge_l"} for line in lines))  # not chosen from
    table = prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert [row["unknown"]["alike"] for row in table["tasks"] if row["name"] == "swap"] == [1]


def test_choices_that_cutting_makes_alike_are_rejected(project: Path) -> None:
    choices = ["ant bee cat", "ant bee dog"]
    lines = [{"input": f"fox {number}", "target": choices[0], "choices": choices} for number in range(12)]
    write_lines(project / "tasks/test/swap.jsonl", *lines)
    prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    with pytest.raises(DataError, match=r"same tokens .*; raise prepare.max_target_tokens, which cuts them to 3$"):
        prepare(params(max_target_tokens=3), root=project, out=project / "out", scratch=project / "scratch")


def test_a_test_task_whose_every_target_is_unknown_is_rejected(project: Path) -> None:
    write_lines(project / "tasks/test/swap.jsonl", *said([*range(12)], "\u03b1\u03b2 \u03b3"))
    with pytest.raises(DataError, match=r"^test task swap: none of its targets has a token other than the unknown one; set a "):
        prepare(params(), root=project, out=project / "out", scratch=project / "scratch")


def test_test_tasks_can_be_chosen(project: Path) -> None:
    table = prepare(params(test_tasks=["swap"]), root=project, out=project / "out", scratch=project / "scratch")
    assert [row["name"] for row in table["tasks"] if row["role"] == "test"] == ["swap"]
    assert table["dropped"] == {"twice": "not in prepare.test_tasks"}
    with pytest.raises(DataError, match=r"prepare.test_tasks: unknown test task 'swop'; did you mean 'swap'\?"):
        prepare(params(test_tasks=["swop"]), root=project, out=project / "out", scratch=project / "scratch")


def test_a_tokenizer_that_cannot_be_loaded_is_one_line(project: Path) -> None:
    with pytest.raises(DataError, match=r"prepare.tokenizer 'no/such' \(revision main\): cannot be loaded"):
        prepare(params(tokenizer="no/such"), root=project, out=project / "out", scratch=project / "scratch")


def test_a_saved_tokenizer_can_be_used_again(project: Path) -> None:
    prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    prepare(params(tokenizer="out/tokenizer"), root=project, out=project / "again", scratch=project / "scratch")
    assert rows(project / "out", "test_tasks.parquet") == rows(project / "again", "test_tasks.parquet")


def test_bpe_decodes_what_it_encodes(project: Path) -> None:
    prepare(params(tokenizer="bpe", vocab_size=120), root=project, out=project / "out", scratch=project / "scratch")
    tokenizer = saved_tokenizer(project / "out" / "tokenizer")
    assert len(tokenizer) <= 120
    ids = tokenizer("ant fox elk")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ant fox elk"


WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]
CONFIGS = {"imdb_Sentiment_with_choices_": 40, "ag_news_classify": 30, "ag_news_which_section": 30}


def write_p3(folder: Path) -> None:
    """Three of P3's configurations, each a few rows in one file."""
    for config, count in CONFIGS.items():
        (folder / config).mkdir(parents=True)
        inputs = [f"{config} {WORDS[number % 6]} {number}" for number in range(count)]
        targets = [f" {WORDS[number % 5]}" for number in range(count)]
        table = pa.table({"inputs_pretokenized": inputs, "targets_pretokenized": targets})
        pq.write_table(table, folder / config / "train-00000-of-00001.parquet")


def write_few_shot(folder: Path) -> None:
    """Rendered few-shot sets of two test tasks: two records of each seed, in two wordings."""
    for task in ("rte", "cb"):
        (folder / task).mkdir(parents=True)
        for seed in (0, 1, 42):
            lines = [
                {
                    "dataset": "super_glue",
                    "template": word,
                    "idx": 10 * seed + number,
                    "inputs_pretokenized": f"{word} {WORDS[number]} {task} ?",
                    "targets_pretokenized": "yes",
                    "answer_choices": ["yes", "no"],
                    "label": 0,
                }
                for number in range(2)
                for word in ("is", "was")
            ]
            (folder / task / f"seed{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def t0_params(**options: Any) -> PrepareParams:
    t0 = {"few_shot": "few-shot", "seeds": [0, 42], "evaluation_seeds": [1], "validation": 4} | options.pop("t0", {})
    settings = {"source": "t0", "path": "p3", "tokenizer": "bpe", "test_tasks": ["rte", "cb"], "t0": t0}
    return PrepareParams.model_validate(settings | options)


@pytest.fixture
def t0_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mhrctl.data.shards.ROW_GROUP", 16)
    write_p3(tmp_path / "p3")
    write_few_shot(tmp_path / "few-shot")
    return tmp_path


def test_t0_streams_p3_and_reads_few_shot_sets(t0_project: Path) -> None:
    table = prepare(t0_params(), root=t0_project, out=t0_project / "out", scratch=t0_project / "scratch")
    by_name = {row["name"]: row for row in table["tasks"]}
    assert {name: by_name[name]["splits"] for name in CONFIGS} == {
        name: {"train": count - 4, "validation": 4} for name, count in CONFIGS.items()
    }
    assert [by_name[name]["dataset"] for name in CONFIGS] == ["imdb", "ag_news", "ag_news"]
    assert len(table["dropped"]) == 310
    assert by_name["rte"] | {"splits": None} == by_name["cb"] | {"name": "rte", "dataset": "rte", "splits": None}
    assert by_name["rte"]["splits"] == {"train": 8, "test": 2}  # 4 records in 2 wordings; 2 records in one wording each
    training = rows(t0_project / "out", "training_tasks.parquet")
    assert all(row["prompt"].startswith(row["task"]) and not row["targets"][0].startswith(" ") for row in training)
    test = [row for row in rows(t0_project / "out", "test_tasks.parquet") if row["task"] == "rte"]
    assert {tuple(row["seeds"]) for row in test if row["split"] == "train"} == {(0,), (42,)}
    assert all(row["choices"] == ["yes", "no"] and row["gold"] == [0] for row in test)
    assert not (t0_project / "scratch").exists() or not list((t0_project / "scratch").iterdir())


def test_rows_of_p3_that_a_test_task_asks_are_left_out_of_its_stream(t0_project: Path) -> None:
    options: dict[str, Any] = {"root": t0_project, "scratch": t0_project / "scratch"}
    clean = prepare(t0_params(), out=t0_project / "clean", **options)
    scored = next(row["prompt"] for row in rows(t0_project / "clean", "test_tasks.parquet") if row["split"] == "test")
    config = "ag_news_classify"
    path = t0_project / f"p3/{config}/train-00000-of-00001.parquet"
    table = pq.read_table(path).to_pydict()
    table["inputs_pretokenized"][3], table["targets_pretokenized"][3] = f" {scored}", "yes "
    table["inputs_pretokenized"][5] = " "
    pq.write_table(pa.table(table), path)
    made = prepare(t0_params(), out=t0_project / "out", **options)
    by_name = {row["name"]: row for row in made["tasks"]}
    assert by_name[config]["repeats"] == {"of_tests": 1}
    assert sum(by_name[config]["splits"].values()) == CONFIGS[config] - 2
    assert made["notes"] == {"rows of P3 without an input or a target": 1}
    assert scored not in {row["prompt"] for row in rows(t0_project / "out", "training_tasks.parquet")}
    assert clean["notes"] == {}


def test_a_few_shot_set_that_is_given_keeps_what_is_tested_and_says_so(t0_project: Path) -> None:
    for task in ("rte", "cb"):  # the records of seed 0 again, under the numbers of seed 1, which is scored
        text = (t0_project / f"few-shot/{task}/seed0.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        write_lines(t0_project / f"few-shot/{task}/seed1.jsonl", *(line | {"idx": line["idx"] + 10} for line in lines))
    made = prepare(t0_params(), root=t0_project, out=t0_project / "out", scratch=t0_project / "scratch")
    repeats = {row["name"]: row["repeats"] for row in made["tasks"]}["rte"]
    assert repeats["of_tests_kept"] > 0
    assert repeats["of_tests"] == 0


def test_every_template_of_a_scored_record_can_count(t0_project: Path) -> None:
    one = prepare(t0_params(), root=t0_project, out=t0_project / "one", scratch=t0_project / "scratch")
    every = prepare(t0_params(t0={"templates": "all"}), root=t0_project, out=t0_project / "all", scratch=t0_project / "scratch")
    assert [row["splits"].get("test") for row in one["tasks"]][-2:] == [2, 2]
    assert [row["splits"].get("test") for row in every["tasks"]][-2:] == [4, 4]


def test_a_killed_run_goes_on_from_its_whole_shards(t0_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"root": t0_project, "scratch": t0_project / "scratch"}
    prepare(t0_params(), out=t0_project / "first", **options)
    settings = t0_params(tokenizer="first/tokenizer")
    prepare(settings, out=t0_project / "whole", **options)
    written: list[str] = []

    def killed_at_the_third(examples: Any, encoder: Any, shard: Path, advance: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard.stem)
        write_shard(examples, encoder, shard, advance)

    monkeypatch.setattr("mhrctl.stages.prepare.write_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, out=t0_project / "out", **options)
    assert not (t0_project / "out").exists()
    monkeypatch.setattr("mhrctl.stages.prepare.write_shard", write_shard)
    for name in written:  # what was written is not read again
        (t0_project / "p3" / name / "train-00000-of-00001.parquet").write_bytes(b"no longer Parquet")
    prepare(settings, out=t0_project / "out", **options)
    for file in ("training_tasks.parquet", "test_tasks.parquet", "tasks.json"):
        assert (t0_project / "out" / file).read_bytes() == (t0_project / "whole" / file).read_bytes()


def test_few_shot_sets_can_train_in_place_of_p3(t0_project: Path) -> None:
    options: dict[str, Any] = {"path": None, "test_tasks": ["rte"]}
    trial = t0_params(**options, t0={"training_few_shot": ["cb"]})
    table = prepare(trial, root=t0_project, out=t0_project / "out", scratch=t0_project / "scratch")
    training = [row for row in table["tasks"] if row["role"] == "training"]
    assert [row["name"] for row in training] == ["super_glue_cb_is", "super_glue_cb_was"]
    assert {row["dataset"] for row in training} == {"super_glue_cb"}
    both = t0_params(path=None, t0={"training_few_shot": ["cb"]})
    with pytest.raises(DataError, match=r"training_few_shot: cb is a test task too; leave it out of prepare.test_tasks"):
        prepare(both, root=t0_project, out=t0_project / "out", scratch=t0_project / "scratch")


def test_worked_examples_are_shown_as_far_as_they_fit(tmp_path: Path) -> None:
    for folder in ("tasks", "splits/default"):
        (tmp_path / "ni" / folder).mkdir(parents=True)
    for split, name in (("train", "task001_copy"), ("test", "task002_copy")):
        (tmp_path / f"ni/splits/default/{split}_tasks.txt").write_text(name + "\n")
        content = {
            "Definition": ["Copy it"],
            "Positive Examples": [{"input": f"{word} {word}", "output": word} for word in ("ant", "bee", "cat")],
            "Instances": [
                {"id": f"{name}-{i}", "input": f"{WORDS[i % 6]} {name[6]} {WORDS[i // 6]}", "output": [WORDS[i % 6]]}
                for i in range(30)
            ],
        }
        (tmp_path / f"ni/tasks/{name}.json").write_text(json.dumps(content))
    shown, tokens = {}, {}
    for longest in (1024, 47):
        settings = params(source="superni", path="ni", positive_examples=3, examples=5, max_input_tokens=longest)
        prepare(settings, root=tmp_path, out=tmp_path / "out", scratch=tmp_path / "scratch")
        test = rows(tmp_path / "out", "test_tasks.parquet")
        shown[longest] = {row["prompt"].count("Positive Example") for row in test}
        tokens[longest] = {row["input_tokens"] for row in test}
        assert all(row["cut_inputs"] == 0 for row in json.loads((tmp_path / "out/tasks.json").read_text())["tasks"])
    assert shown == {1024: {3}, 47: {2}}
    assert max(tokens[47]) <= 47 < min(tokens[1024])
