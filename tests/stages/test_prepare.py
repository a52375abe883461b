"""prepare: rows, splits, prompts, lengths, counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.config.tasks import PrepareParams
from mhrctl.data.shards import write_shard
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import DataError
from mhrctl.stages.prepare import prepare


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
        assert row["prompt"].startswith(f"{row['task']}: ")
        assert row["input_ids"] == tokenizer(row["prompt"])["input_ids"]
        assert row["input_tokens"] == len(row["input_ids"])
        assert row["target_ids"][0][-1] == tokenizer.eos_token_id
        assert row["target_tokens"] == max(map(len, row["target_ids"]))


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
