"""`mhrctl evaluate`: when it makes its output anew, what it says, and tasks with a metric of their own, to the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest

from mhrctl.evaluation.scores import CellMetrics, read_metrics
from mhrctl.evaluation.text_scores import token_f1
from tests.cli.conftest import SCORES, MadeAnew, RefusesEdited, assert_of_the_same_run, assert_whole_again
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]
LORA = ("evaluate", "-m", "lora")
SIGNS = ["<", "=", ">"]
"""Choices that are nothing but punctuation: by their text they are all the same answer."""


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def measured(project: Path) -> Path:
    """A project whose test tasks are scored by F1, by accuracy and by the usual metric."""
    numbers = [(first, second) for first in range(4) for second in range(3)]
    signs = [
        {"input": f"{first} {second}", "target": SIGNS[(first >= second) + (first > second)], "choices": SIGNS}
        for first, second in numbers
    ]
    write_lines(project / "tasks/test/sign.jsonl", signs)
    write_lines(project / "tasks/training/signs.jsonl", ({"input": sign, "target": sign} for sign in SIGNS * 4))  # known words
    swap = project / "tasks/test/swap.jsonl"
    write_lines(swap, ({**json.loads(line), "metric": "f1"} for line in swap.read_text().splitlines()))
    return project


def run_all(run: Run, project: Path) -> None:
    for command in (["prepare"], ["backbone"], *([stage, "-m", "lora"] for stage in ("pretrain", "adapt", "evaluate"))):
        assert run(*command, "-C", project) == 0, command


def predictions(project: Path, cell: str = "lora-s0") -> dict[tuple[str, str], list[dict[str, Any]]]:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in pq.read_table(project / f"data/evaluate/{cell}/predictions.parquet").to_pylist():
        rows.setdefault((row["task"], row["phase"]), []).append(row)
    return rows


def test_metrics_of_ones_own_go_from_the_lines_of_a_task_to_the_report(measured: Path, run: Run, capfd: Capture) -> None:
    run_all(run, measured)
    rows = predictions(measured)
    expected: dict[str, dict[str, float]] = {}
    for (task, phase), of_task in rows.items():
        for row in of_task:
            assert (row["f1"] is not None, row["accuracy"] is not None) == (task == "swap", task == "sign")
            assert (row["place"] is None, row["right_places"] is None) == (task != "sign", task != "sign")
            assert row["f1"] in (None, pytest.approx(token_f1(row["prediction"], row["references"])))
            # the signs differ from each other to the letter, so that here a choice's text says where it stands
            assert row["accuracy"] in (None, 100.0 * (row["prediction"] in row["references"]))
            assert task != "sign" or row["accuracy"] == 100.0 * (row["place"] in row["right_places"])
            assert task != "sign" or row["prediction"] == SIGNS[row["place"]]
        metric = {"swap": "f1", "sign": "accuracy", "twice": "rouge_l"}[task]
        expected.setdefault(phase, {})[task] = fmean(row[metric] for row in of_task)
    assert {row["prediction"] for phase in ("zero_shot", "adapted") for row in rows["sign", phase]} <= set(SIGNS)

    cell = read_metrics(measured / "data/metrics/evaluate")["lora-s0"]
    assert cell.metric == "mixed"
    assert {task: scores.metric for task, scores in cell.by_task.items()} == {
        "sign": "accuracy",
        "swap": "f1",
        "twice": "rouge_l",
    }
    check_means(cell, expected)
    check_validation(measured, cell)
    last = capfd.readouterr().err.splitlines()[-3:]
    for line, phase in zip(last, ("zero_shot", "adapted"), strict=False):
        means = cell.means(phase)  # type: ignore[arg-type]
        said = f"lora-s0 {phase.replace('_', '-')}: score {means['score']:.1f}, exact match {means['exact_match']:.1f}"
        assert line == said
    check_report(measured, cell, run)


def check_means(cell: CellMetrics, expected: dict[str, dict[str, float]]) -> None:
    for phase, of_task in expected.items():
        means = cell.means(phase)  # type: ignore[arg-type]
        assert list(means) == ["score", "rouge_l", "exact_match", "accuracy", "f1"]
        assert means["score"] == pytest.approx(fmean(of_task.values()), abs=1e-4)
        assert means["f1"] == pytest.approx(of_task["swap"], abs=1e-4)
        assert means["accuracy"] == pytest.approx(of_task["sign"], abs=1e-4)
        assert cell.own_scores(phase) == pytest.approx(of_task, abs=1e-4)  # type: ignore[arg-type]


def check_validation(project: Path, cell: CellMetrics) -> None:
    """A sign is right or wrong by its place; by their texts without punctuation all of them would be right at every step."""
    lines = (project / "data/adapt/lora-s0/validation.csv").read_text().splitlines()[1:]
    scores = [float(score) for task, _, score in (line.split(",") for line in lines) if task == "sign"]
    assert min(scores) < 100
    assert cell.by_task["sign"].validation == pytest.approx(max(scores), abs=1e-4)


def check_report(project: Path, cell: CellMetrics, run: Run) -> None:
    assert run("report", "-C", project) == 0
    assert run("report", "--html", "-C", project) == 0
    report = project / "data/report"
    head, *lines = (report / "scores.csv").read_text().splitlines()
    assert "phase,rouge_l,exact_match,accuracy,f1,score,trial" in head
    assert f",{cell.means('adapted')['accuracy']},{cell.means('adapted')['f1']}," in lines[-1]
    summary = json.loads((report / "summary.json").read_text())["lora"]
    assert summary["adapted_accuracy"] == pytest.approx(cell.means("adapted")["accuracy"], abs=0.01)
    page = (report / "report.html").read_text()
    for task, title in (("sign", "accuracy"), ("swap", "F1"), ("twice", "ROUGE-L")):
        assert f"<td>{task}</td><td>{title}</td><td>{cell.by_task[task].adapted:.1f}</td>" in page
    assert "adapted score" in (report / "table2.md").read_text()


@pytest.mark.parametrize(
    ("task", "said"), [("swap", "F1 {score:.1f}, exact match {exact:.1f}"), ("sign", "accuracy {score:.1f}")]
)
def test_a_suite_of_one_metric_is_named_by_it(measured: Path, run: Run, capfd: Capture, task: str, said: str) -> None:
    """Exact match stands beside the score only where answers are texts."""
    for file in (measured / "tasks/test").iterdir():
        if file.stem != task:
            file.unlink()
    assert run("prepare", "-C", measured) == 0
    assert run("backbone", "-C", measured) == 0
    assert run("evaluate", "-m", "backbone", "-C", measured) == 0
    means = read_metrics(measured / "data/metrics/evaluate")["backbone"].means("zero_shot")
    line = said.format(score=means["score"], exact=means["exact_match"])
    assert f"backbone zero-shot: {line}\n" in capfd.readouterr().err
    assert run("report", "--table", 2, "--format", "markdown", "-C", measured) == 0
    out = capfd.readouterr().out
    assert f"zero-shot {said.split(' {', maxsplit=1)[0]} | adapted" in out
    assert ("adapted EM" in out) == (task == "swap")


@pytest.mark.parametrize(
    ("metric", "choices", "said"),
    [
        ("f2", True, "unknown metric 'f2' (known: rouge_l, exact_match, accuracy, f1)"),
        ("choice-accuracy", True, "unknown metric 'choice-accuracy'; did you mean 'accuracy'?"),
        ("accuracy", False, "metric 'accuracy' is over answer choices; give `choices`, or another metric"),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "check"])
def test_a_metric_that_cannot_be_is_reported_with_its_line(
    measured: Path, run: Run, capfd: Capture, command: str, metric: str, choices: bool, said: str
) -> None:
    file = measured / "tasks/test/sign.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row.pop("metric", None)
        if not choices:
            del row["choices"]
    rows[2]["metric"] = metric
    write_lines(file, rows)
    assert run(command, "-C", measured) == 2
    captured = capfd.readouterr()
    lines = [line for line in (captured.out + captured.err).splitlines() if said in line]
    assert len(lines) == 1
    assert f"{file}:3: {said}" in lines[0]


def test_a_result_of_edited_inputs_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("evaluate", "--cell", "lora-s0", file="data/adapt/lora-s0/validation.csv", old="swap", new="sweep")


@pytest.mark.parametrize("options", [["--zero-shot"], ["--force"]], ids=" ".join)
def test_other_settings_and_force_make_it_anew(is_made_anew: MadeAnew, options: list[str]) -> None:
    assert is_made_anew(*LORA, *options)


@pytest.mark.parametrize("file", [SCORES, "data/evaluate/lora-s0/predictions.parquet"])
def test_an_output_that_is_not_whole_is_made_anew(copy: Path, is_made_anew: MadeAnew, file: str) -> None:
    assert_whole_again(is_made_anew, copy / file, *LORA)


def test_the_scores_beside_an_output_are_of_the_same_run(copy: Path, is_made_anew: MadeAnew) -> None:
    assert_of_the_same_run(is_made_anew, copy / SCORES, *LORA)
