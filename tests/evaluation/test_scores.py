"""The scores of a cell: what is accepted, what is reported of a broken folder, and means of scores in long form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mhrctl.errors import ArtifactError
from mhrctl.evaluation.scores import CellMetrics, Score, by_own_metric, means_of, read_metrics

CELL: dict[str, Any] = {
    "method": "mhr",
    "heads": 8,
    "variant": "plain",
    "layout": "full",
    "extra_steps": 0,
    "seed": 0,
    "trial": 0,
    "settings": {},
    "granularity": "layer",
    "skills": 8,
    "suite": "compositional",
    "backbone": "scratch-1.2M",
    "frozen": {"source": "scratch", "parameters": 1_196_672, "fingerprint": "a"},
    "metric": "rouge_l",
    "zero_shot": {"score": 41.2, "rouge_l": 41.2, "exact_match": 12.0},
    "adapted": {"score": 80.1, "rouge_l": 80.1, "exact_match": 66.0},
    "validation": 83.0,
    "by_task": {
        "swap": {
            "metric": "rouge_l",
            "zero_shot": 41.2,
            "adapted": 80.1,
            "validation": 83.0,
            "undecided": False,
            "rouge_tokenizer": "english",
        }
    },
    "parameters": {"multi_task": 1234, "adaptation": 123},
    "examples": 1200,
    "tasks": 12,
}
ONE: dict[str, Any] = CELL["by_task"]["swap"]
BARE = CELL | {
    "method": "backbone",
    "heads": None,
    "seed": None,
    "granularity": None,
    "skills": None,
    "adapted": None,
    "validation": None,
    "by_task": {"swap": ONE | {"adapted": None, "validation": None}},
    "parameters": {"multi_task": 0, "adaptation": 0},
}


def write(folder: Path, name: str, **changes: object) -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(CELL | changes))
    return file


@pytest.mark.parametrize("content", [CELL, BARE], ids=["cell", "bare backbone"])
def test_a_file_survives_a_round_trip(content: dict[str, Any]) -> None:
    assert CellMetrics.model_validate(content).model_dump() == content


def test_metrics_are_frozen() -> None:
    metrics = CellMetrics.model_validate(CELL)
    with pytest.raises(ValidationError, match="frozen"):
        metrics.method = "lora"  # type: ignore[misc]


def test_cells_are_read_by_name(tmp_path: Path) -> None:
    write(tmp_path, "mhr-h8-s1", seed=1)
    write(tmp_path, "mhr-h8-s0")
    (tmp_path / "notes.txt").write_text("not a cell")
    cells = read_metrics(tmp_path)
    assert [(name, cell.seed) for name, cell in cells.items()] == [("mhr-h8-s0", 0), ("mhr-h8-s1", 1)]


@pytest.mark.parametrize("folder", ["", "missing"])
def test_no_scores_says_what_to_run(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ArtifactError, match=r"nothing to report yet: no scores in .*; run `mhrctl run` or `dvc repro`"):
        read_metrics(tmp_path / folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": 1.0}, "loss: Extra inputs are not permitted"),
        ({"zero_shot": None}, "zero_shot: "),
        ({"adapted": {"score": 1, "rouge_l": 100.5, "exact_match": 0}}, "adapted.rouge_l: Input should be less"),
        ({"zero_shot": {"score": 1, "rouge_l": -1, "exact_match": 0}}, "zero_shot.rouge_l: Input should be greater"),
        ({"zero_shot": {"score": 1, "rouge_l": float("nan"), "exact_match": 0}}, "zero_shot.rouge_l: "),
        ({"method": "mhr_zz"}, "did you mean 'mhr_z'?"),
        ({"zero_shot": {"score": 1, "rouge": 1}}, "zero_shot: unknown metric 'rouge'; did you mean 'rouge_l'?"),
        ({"adapted": {"rouge_l": 1}}, "adapted: score is missing"),
        ({"metric": "rouge"}, "metric: unknown metric 'rouge'; did you mean 'rouge_l'?"),
        (
            {"by_task": {"swap": {"metric": "mixed", "zero_shot": 1, "adapted": None, "validation": None}}},
            "by_task.swap.metric: unknown metric 'mixed'",
        ),
        ({"by_task": {"swap": ONE | {"adapted": float("nan")}}}, "by_task.swap.adapted: Input should be"),
        ({"by_task": {"swap": ONE | {"validation": float("inf")}}}, "by_task.swap.validation: Input should be a finite number"),
        ({"by_task": {"swap": ONE | {"rouge_tokenizer": "gpt3"}}}, "unknown ROUGE tokenizer 'gpt3'; did you mean 'gpt2'?"),
        ({"validation": float("nan")}, "validation: Input should be a finite number"),
        ({"by_task": {}}, "by_task: Dictionary should have at least 1 item"),
        ({"examples": 0}, "examples: Input should be greater than 0"),
    ],
    ids=[
        *("extra key", "missing scores", "over 100", "below 0", "not a number", "unknown method", "unknown metric of means"),
        *("no score", "unknown metric", "a task of several metrics", "a task's score is no number", "endless validation"),
        *("unknown tokenizer", "validation is no number", "no tasks", "no examples"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    file = write(tmp_path, "mhr-h8-s0", **changes)
    with pytest.raises(ArtifactError) as error:
        read_metrics(tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b'{"method": "mhr"', b"\xff\xfe\x00", b""], ids=["cut off", "not text", "empty"])
def test_a_file_that_is_no_json_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mhr-h8-s0.json"
    file.write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        read_metrics(tmp_path)
    assert str(error.value).startswith(f"{file}: Invalid JSON")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("other", [{"suite": "superni"}, {"backbone": "t5-xl"}])
def test_scores_of_two_suites_or_backbones_do_not_mix(tmp_path: Path, other: dict[str, str]) -> None:
    write(tmp_path, "lora-s0", method="lora", heads=1)
    write(tmp_path, "mhr-h8-s0", **other)
    with pytest.raises(ArtifactError) as error:
        read_metrics(tmp_path)
    for part in ("lora-s0.json", "mhr-h8-s0.json", *other.values()):
        assert part in str(error.value)


def test_scores_of_other_weights_of_one_name_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path, "lora-s0", method="lora", heads=1)
    write(tmp_path, "mhr-h8-s1", seed=1, frozen=None)  # of an older mhrctl, which did not say
    assert len(read_metrics(tmp_path)) == 2
    write(tmp_path, "mhr-h8-s0", frozen=CELL["frozen"] | {"fingerprint": "b"})
    with pytest.raises(ArtifactError, match=r"mhr-h8-s0.json and lora-s0.json are of other weights of scratch-1.2M.*evaluate"):
        read_metrics(tmp_path)


SCORES = [
    Score("swap", "zero_shot", "rouge_l", 40.0),
    Score("swap", "zero_shot", "exact_match", 10.0),
    Score("quiz", "zero_shot", "rouge_l", 60.00004),
    Score("quiz", "zero_shot", "exact_match", 50.0),
    Score("quiz", "zero_shot", "accuracy", 20.0),
    Score("swap", "adapted", "rouge_l", 80.0),
    Score("swap", "adapted", "exact_match", 70.0),
    Score("quiz", "adapted", "accuracy", 90.0),
]
METRICS = {"swap": "rouge_l", "quiz": "accuracy"}


def test_a_task_counts_by_its_own_metric() -> None:
    assert by_own_metric(SCORES, "zero_shot", METRICS) == {"swap": 40.0, "quiz": 20.0}
    assert by_own_metric(SCORES, "adapted", METRICS) == {"swap": 80.0, "quiz": 90.0}


def test_means_are_of_own_metrics_and_of_each_that_is_recorded() -> None:
    zero_shot = means_of(SCORES, "zero_shot", METRICS)
    assert zero_shot == {"score": 30.0, "rouge_l": 50.0, "exact_match": 30.0, "accuracy": 20.0}
    assert list(zero_shot) == ["score", "rouge_l", "exact_match", "accuracy"]  # as they stand in the file


def test_a_cell_gives_means_and_own_scores_of_the_phases_it_has() -> None:
    cell, bare = CellMetrics.model_validate(CELL), CellMetrics.model_validate(BARE)
    assert cell.means("adapted") == {"score": 80.1, "rouge_l": 80.1, "exact_match": 66.0}
    assert (cell.own_scores("zero_shot"), cell.own_scores("adapted")) == ({"swap": 41.2}, {"swap": 80.1})
    assert (bare.means("adapted"), bare.own_scores("adapted")) == ({}, {})


@pytest.mark.parametrize(
    ("name", "changes"),
    [("mhr-h8-s1", {}), ("mhr-h4-s0", {}), ("mhr-h8-light-s0", {}), ("lora-s0", {}), ("backbone", {}), ("mhr-h8-s0", BARE)],
)
def test_scores_of_another_cell_than_the_file_s_name_says_are_refused(
    tmp_path: Path, name: str, changes: dict[str, object]
) -> None:
    write(tmp_path, name, **changes)
    with pytest.raises(ArtifactError, match=rf"{name}\.json: holds the scores of (mhr-h8-s0|backbone); run `mhrctl evaluate`"):
        read_metrics(tmp_path)
