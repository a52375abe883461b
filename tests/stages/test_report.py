"""The report stage over a few cells: its files, and what is in those that DVC reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.stages.report import report
from tests.report.made import both, made_cell, write_cells

CELLS: dict[str, dict[str, Any]] = {
    "backbone": made_cell("backbone", None, None, zero_shot=10.0),
    "lora-s0": made_cell("lora", 1, 0, both(60.0)),
    "lora-s1": made_cell("lora", 1, 1, both(62.01)),
    "lora-s2": made_cell("lora", 1, 2, both(67.0)),
    "lora-x100-s0": made_cell("lora", 1, 0, zero_shot=45.0, extra_steps=100),
    "mhr-h8-s0": made_cell("mhr", 8, 0, both(80.0), zero_shot=41.0, exact=66.0),
    "mhr-h8-s1": made_cell("mhr", 8, 1, both(83.0), zero_shot=42.0, exact=68.0),
}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with the cells above and two pre-training logs."""
    folder = write_cells(tmp_path / "metrics", CELLS)
    logs = folder / "pretrain"
    logs.mkdir()
    (logs / "mhr-h8-s0.csv").write_text("step,loss,lr,routing_lr,tokens\n10,2.5,0.01,0.1,640\n20,1.25,0.01,0.1,1280\n")
    (logs / "lora-s0.csv").write_text("step,loss,lr,routing_lr,tokens\n10,3.50321,0.01,0.0,640\n")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output folder."""
    folder = tmp_path / "report"
    folder.mkdir()
    return folder


def test_report_writes_its_files(metrics: Path, out: Path) -> None:
    report(metrics, out, tables=[1, 2], expected_cells=["lora-s0", "poly-s0"])
    written = ["curves.csv", "differences.md", "results.md", "scores.csv", "summary.json", "table1.md", "table2.md"]
    assert sorted(path.name for path in out.iterdir()) == written
    assert "| lora | 3 | 40.0±0.0 | 63.0±3.6 |" in (out / "table2.md").read_text()
    assert "| mhr-h8 | 81.5 | +20.50 | - | too few | 41.5 | 3,456 | 2 |" in (out / "results.md").read_text()
    assert "No scores yet: poly-s0." in (out / "table2.md").read_text()
    # against lora: 20 and 20.99 points on both tasks, in the seeds that both have
    assert "| mhr-h8 | 2 | 2 | +20.50 | - | - | too few |" in (out / "differences.md").read_text()


def test_scores_have_a_row_for_each_cell_and_phase(metrics: Path, out: Path) -> None:
    report(metrics, out, tables=[], expected_cells=[])
    scores = (out / "scores.csv").read_text().splitlines()
    assert len(scores) == 1 + 1 + 1 + 2 * 5
    columns = "cell,method,heads,variant,extra_steps,seed,phase,rouge_l,exact_match,score,trial,multi_task,adaptation"
    assert scores[:3] == [
        columns,
        "backbone,backbone,,plain,0,,zero_shot,10.0,12.0,10.0,0,17694720,3456",
        "lora-s0,lora,1,plain,0,0,zero_shot,40.0,12.0,40.0,0,17694720,3456",
    ]
    assert "mhr-h8-s1,mhr,8,plain,0,1,adapted,83.0,68.0,83.0,0,17694720,3456" in scores


def test_curves_are_those_of_all_logs(metrics: Path, out: Path) -> None:
    report(metrics, out, tables=[], expected_cells=[])
    curves = "cell,step,loss\nlora-s0,10,3.50321\nmhr-h8-s0,10,2.5\nmhr-h8-s0,20,1.25\n"
    assert (out / "curves.csv").read_text() == curves


def test_summary_holds_means_over_seeds(metrics: Path, out: Path) -> None:
    report(metrics, out, tables=[], expected_cells=[])
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary) == ["backbone", "lora", "mhr-h8"]
    assert summary["backbone"] == {"zero_shot_rouge_l": 10.0, "zero_shot_exact_match": 12.0, "zero_shot_score": 10.0}
    assert summary["lora"]["adapted_rouge_l"] == 63.0  # 63.00333 in two decimals
    assert summary["mhr-h8"] == {
        "zero_shot_rouge_l": 41.5,
        "zero_shot_exact_match": 12.0,
        "zero_shot_score": 41.5,
        "adapted_rouge_l": 81.5,
        "adapted_exact_match": 67.0,
        "adapted_score": 81.5,
    }


def test_only_the_tables_asked_for_are_written(metrics: Path, out: Path) -> None:
    report(metrics, out, tables=[2], expected_cells=[])
    assert [path.name for path in out.glob("table*")] == ["table2.md"]


def test_a_report_without_training_logs_has_no_curves(metrics: Path, out: Path) -> None:
    for file in (metrics / "pretrain").iterdir():
        file.unlink()
    report(metrics, out, tables=[], expected_cells=[])
    assert (out / "curves.csv").read_text() == "cell,step,loss\n"


def test_a_broken_training_log_is_named(metrics: Path, out: Path) -> None:
    (metrics / "pretrain" / "lora-s0.csv").write_text("step,lr\n10,0.1\n")
    with pytest.raises(ArtifactError, match=r"lora-s0\.csv: .*mhrctl pretrain"):
        report(metrics, out, tables=[], expected_cells=[])


def test_no_scores_say_what_to_run(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run `mhrctl run` or `dvc repro`"):
        report(tmp_path, out, tables=[2], expected_cells=[])
    assert list(out.iterdir()) == []


def test_a_metric_that_only_some_cells_have_is_empty_for_the_others(metrics: Path, out: Path) -> None:
    cell = made_cell("poly", 1, 0, both(50.0), metric="f1")
    cell["zero_shot"]["f1"], cell["adapted"]["f1"] = 30.5, 50.0
    write_cells(metrics, {"poly-s0": cell})
    report(metrics, out, tables=[], expected_cells=[])
    head, *lines = (out / "scores.csv").read_text().splitlines()
    assert head.split(",")[6:11] == ["phase", "rouge_l", "exact_match", "f1", "score"]
    assert "poly-s0,poly,1,plain,0,0,zero_shot,40.0,12.0,30.5,40.0,0,17694720,3456" in lines
    assert "lora-s0,lora,1,plain,0,0,zero_shot,40.0,12.0,,40.0,0,17694720,3456" in lines
    summary = json.loads((out / "summary.json").read_text())
    assert summary["poly"]["adapted_f1"] == 50.0
    assert "adapted_f1" not in summary["lora"]
