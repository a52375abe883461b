"""evaluate: phases, references, and the scores that git keeps."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest

from mhrctl.metrics import read_metrics
from mhrctl.scoring import exact_match, rouge_l
from tests.conftest import Run


def test_predictions_and_scores_agree(walked: Path) -> None:
    metrics = read_metrics(walked / "data/metrics/evaluate")
    rows = pq.read_table(walked / "data/evaluate/mhr-h4-s0/predictions.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 4  # phases, tasks, examples
    for row in rows:
        assert row["rouge_l"] == rouge_l(row["prediction"], row["references"])
        assert row["exact_match"] == exact_match(row["prediction"], row["references"])
    adapted = metrics["mhr-h4-s0"].adapted
    assert adapted is not None
    assert adapted.rouge_l == pytest.approx(fmean(row["rouge_l"] for row in rows if row["phase"] == "adapted"), abs=1e-4)
    assert (metrics["mhr-h4-s0"].tasks, metrics["mhr-h4-s0"].examples) == (2, 8)


def test_variants_of_a_method_start_from_the_same_zero_shot(walked: Path) -> None:
    metrics = read_metrics(walked / "data/metrics/evaluate")
    assert metrics["mhr-h4-s0"].zero_shot == metrics["mhr_z-h4-s0"].zero_shot == metrics["mhr_mu-h4-s0"].zero_shot
    assert metrics["backbone"].adapted is None


def test_zero_shot_needs_no_adaptation(copy: Path, run: Run) -> None:
    before = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    assert run("evaluate", "-m", "lora", "--zero-shot", "-C", copy) == 0
    after = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    assert after["zero_shot"] == before["zero_shot"]
    assert after["adapted"] is None


def test_adapters_of_other_tasks_are_refused(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "-C", copy, "--set", "prepare.test_tasks=[swap]") == 0
    capfd.readouterr()
    assert run("evaluate", "-m", "lora", "-C", copy) == 2
    assert "made for other tasks (differs in twice)" in capfd.readouterr().err
