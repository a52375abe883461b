"""The task table, as later stages read it."""

from __future__ import annotations

import json
from pathlib import Path

from mhrctl.data.table import rouge_tokenizers, shortage, task_metrics, training_data_sets

ROWS = [
    {"name": "a1", "role": "training", "metric": "rouge_l", "dataset": "a"},
    {"name": "b", "role": "training", "metric": "accuracy", "dataset": "b"},
    {"name": "a2", "role": "training", "metric": "rouge_l", "dataset": "a"},
    {"name": "t", "role": "test", "metric": "exact_match", "dataset": "t", "rouge_tokenizer": "gpt2"},
]


def prepared(folder: Path) -> Path:
    (folder / "tasks.json").write_text(json.dumps({"suite": "toy", "tasks": ROWS}))
    return folder


def test_every_task_has_its_metric(tmp_path: Path) -> None:
    metrics = task_metrics(prepared(tmp_path))
    assert metrics == {"a1": "rouge_l", "b": "accuracy", "a2": "rouge_l", "t": "exact_match"}


def test_every_task_has_a_rouge_tokenizer_and_it_was_english_before_there_were_several(tmp_path: Path) -> None:
    assert rouge_tokenizers(prepared(tmp_path)) == {"a1": "english", "b": "english", "a2": "english", "t": "gpt2"}


def test_templates_of_one_data_set_stand_together(tmp_path: Path) -> None:
    assert training_data_sets(prepared(tmp_path)) == {"a": ["a1", "a2"], "b": ["b"]}


def test_tasks_with_fewer_examples_than_are_asked_for_are_named(tmp_path: Path) -> None:
    splits = {
        "pool": {"test": 9, "pool": 10},
        "given": {"train": 4, "validation": 2, "test": 9},
        "sets": {"train": 30, "test": 9},
        "training": {"train": 1},
    }
    rows = [{"name": name, "role": "training" if name == "training" else "test", "splits": of} for name, of in splits.items()]
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": rows}))
    assert shortage(tmp_path, shots=4, validation=2) is None
    assert shortage(tmp_path, shots=None, validation=100) is None
    said = shortage(tmp_path, shots=8, validation=3)
    assert said is not None
    assert said.startswith("fewer examples than the 8 shots and 3 of validation that are asked for")
    assert said.endswith(": pool (10), given (6)")
    many = [{"name": f"t{number}", "role": "test", "splits": {"pool": 2}} for number in range(8)]
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": many}))
    assert str(shortage(tmp_path, shots=8, validation=3)).endswith("t4 (2) and 3 more")
