"""The source `t0`: test tasks and training tasks put together, and what is looked at before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.config.resolve import load_params
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import silent
from mhrctl.suites.t0 import source
from mhrctl.suites.task import Seen, TaskCounts

PROJECT = """\
prepare: {{source: t0, {prepare}, tokenizer: word}}
backbone: {{source: scratch}}
pretrain: {{steps: 1, batch_size: 1}}
adapt: {{steps: 1, batch_size: 1, shots: null, evaluate_every: 1}}
evaluate: {{}}
grid: {{seeds: [{seeds}], methods: {{lora: }}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One of P3's configurations, and rendered few-shot sets of two tasks."""
    config = tmp_path / "p3/imdb_Sentiment_with_choices_"
    config.mkdir(parents=True)
    pq.write_table(
        pa.table({"inputs_pretokenized": ["a"], "targets_pretokenized": ["b"]}), config / "train-00000-of-00001.parquet"
    )
    for task in ("rte", "cb"):
        (tmp_path / "sets" / task).mkdir(parents=True)
        for seed in (0, 1):
            line = {"template": "is", "idx": seed, "inputs_pretokenized": "q", "answer_choices": ["yes", "no"], "label": 0}
            (tmp_path / f"sets/{task}/seed{seed}.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def params(**t0: Any) -> PrepareParams:
    settings = {"few_shot": "sets", "seeds": [0], "evaluation_seeds": [1]} | t0
    return PrepareParams.model_validate(
        {"source": "t0", "path": "p3", "tokenizer": "word", "test_tasks": ["rte"], "t0": settings}
    )


def check(root: Path, prepare: str, seeds: str = "0, 1") -> Seen:
    (root / "params.yaml").write_text(PROJECT.format(prepare=prepare, seeds=seeds))
    return source.check(load_params(root / "params.yaml").params, root, metrics=OVER_CHOICES)


def test_training_tasks_are_streamed_in_the_sizes_of_t0_and_test_tasks_keep_their_splits(root: Path) -> None:
    training, test = source.read(params(train=7, validation=3), root, metrics=OVER_CHOICES, track=silent).tasks
    assert (training.role, training.stream_train, training.stream_validation) == ("training", 7, 3)
    assert training.stream is not None
    assert [example.input for example in training.stream()] == ["a"]
    assert (test.name, test.keeps_splits, [example.split for example in test.examples]) == ("rte", True, ["train", "test"])


def test_few_shot_sets_in_place_of_p3_are_of_other_tasks(root: Path) -> None:
    assert [
        task.name for task in source.read(params(training_few_shot=["cb"]), root, metrics=OVER_CHOICES, track=silent).tasks
    ] == [
        "super_glue_cb_is",
        "rte",
    ]
    with pytest.raises(DataError, match=r"prepare.t0.training_few_shot: rte is a test task too"):
        source.read(params(training_few_shot=["rte"]), root, metrics=OVER_CHOICES, track=silent)


def test_what_the_hub_has_is_not_looked_at(root: Path) -> None:
    seen = check(root, "hub: a/b, test_tasks: [rte, cb], t0: {few_shot: sets}")
    assert seen == Seen(TaskCounts(313, 38, 2), ("prepare.hub a/b", "evaluation splits on the hub"))
    assert check(root, "path: p3, test_tasks: [rte], t0: {few_shot: sets, evaluation_seeds: [1]}", "0") == Seen(None)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("hub: a/b, test_tasks: [rta]", r"prepare.test_tasks: unknown T0 test task 'rta'; did you mean 'rte'"),
        ("path: nowhere", r"nowhere: no such folder; set prepare.path"),
        ("hub: a/b, t0: {evaluation: nowhere}", r"nowhere: no such folder; set prepare.t0.evaluation"),
        ("hub: a/b, t0: {promptsource: sets}", r"sets: no templates in it; prepare.t0.promptsource must be a checkout"),
        (
            "hub: a/b, test_tasks: [rte], t0: {few_shot: sets, seeds: [5]}",
            r"task rte has no few-shot set of seed 5 \(it has 0, 1\)",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_setting(root: Path, prepare: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(root, prepare)


def test_what_lies_beside_the_scored_records_is_named(root: Path) -> None:
    (root / "scored").mkdir()
    for name in ("rte.jsonl", "._rte.jsonl", "rte.csv"):
        (root / "scored" / name).write_text("{}\n")
    seen = check(root, "hub: a/b, test_tasks: [rte], t0: {few_shot: sets, evaluation: scored}")
    assert seen.notes == {
        "hidden or backup files and folders passed over: ._rte.jsonl": 1,
        "files without the ending .jsonl or .parquet passed over: rte.csv": 1,
    }
