"""The task table, as later stages read it."""

from __future__ import annotations

import json
from pathlib import Path

from mhrctl.data.table import task_metrics, training_data_sets

ROWS = [
    {"name": "a1", "role": "training", "metric": "rouge_l", "dataset": "a"},
    {"name": "b", "role": "training", "metric": "accuracy", "dataset": "b"},
    {"name": "a2", "role": "training", "metric": "rouge_l", "dataset": "a"},
    {"name": "t", "role": "test", "metric": "exact_match", "dataset": "t"},
]


def prepared(folder: Path) -> Path:
    (folder / "tasks.json").write_text(json.dumps({"suite": "toy", "tasks": ROWS}))
    return folder


def test_every_task_has_its_metric(tmp_path: Path) -> None:
    metrics = task_metrics(prepared(tmp_path))
    assert metrics == {"a1": "rouge_l", "b": "accuracy", "a2": "rouge_l", "t": "exact_match"}


def test_templates_of_one_data_set_stand_together(tmp_path: Path) -> None:
    assert training_data_sets(prepared(tmp_path)) == {"a": ["a1", "a2"], "b": ["b"]}
