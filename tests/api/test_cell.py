"""What a loaded cell says is what the commands say."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mhrctl
from tests.api.conftest import LIVELY, rows_of_tests
from tests.conftest import mhrctl as command


@pytest.fixture(scope="module")
def loaded(lively: Path) -> dict[str, mhrctl.Cell]:
    project = mhrctl.Project(lively)
    return {name: project.cell(name) for name in LIVELY}


def predicted(project: Path, cell: str, rows: list[dict[str, Any]], folder: Path, *more: str) -> list[dict[str, Any]]:
    """What `mhrctl predict` writes for rows."""
    given, out = folder / "in.jsonl", folder / "out.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.unlink(missing_ok=True)
    assert command("predict", given, "--cell", cell, "-o", out, *more, "-C", project) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", LIVELY)
def test_rows_of_many_tasks_are_answered_as_by_predict(
    lively: Path, loaded: dict[str, mhrctl.Cell], name: str, tmp_path: Path
) -> None:
    rows = rows_of_tests(lively)
    said = [row["answer"] for row in predicted(lively, name, rows, tmp_path)]
    cell = loaded[name]
    assert cell.tasks == ["swap", "twice"]
    assert len(set(said)) > 2
    assert cell.generate(rows) == said
    texts, tasks = [row["input"] for row in rows], [row["task"] for row in rows]
    assert cell.generate(texts, task=tasks) == said
    of_swap = [text for text, task in zip(texts, tasks, strict=True) if task == "swap"]
    assert cell.generate(of_swap, task="swap") == [text for text, task in zip(said, tasks, strict=True) if task == "swap"]
    assert cell.generate([]) == []


def test_the_length_and_the_beams_of_a_call_are_heeded(lively: Path, loaded: dict[str, mhrctl.Cell], tmp_path: Path) -> None:
    rows = rows_of_tests(lively)
    options = ("--max-new-tokens", "1", "--beams", "2")
    said = [row["answer"] for row in predicted(lively, "lora-s0", rows, tmp_path, *options)]
    cell = loaded["lora-s0"]
    usual = cell.generate(rows)
    assert cell.generate(rows, max_new_tokens=1, beams=2) == said != usual
    assert cell.generate(rows) == usual


def test_log_likelihoods_are_the_scores_of_predict(lively: Path, loaded: dict[str, mhrctl.Cell], tmp_path: Path) -> None:
    rows = [
        {"task": "swap", "input": "ant bee", "choices": ["ant", "bee cat", "dog dog elk"]},
        {"task": "twice", "input": "bee", "choices": ["fox"]},
        {"task": "swap", "input": "cat", "choices": ["ant bee", "ant bee"]},
    ]
    cell = loaded["mhr-h4-s0"]
    scores = [row["scores"] for row in predicted(lively, "mhr-h4-s0", rows, tmp_path, "--scores")]
    means = cell.log_likelihoods(rows, length_norm=cell_length_norm(lively))
    assert [[round(number, 4) for number in row] for row in means] == scores
    sums = cell.log_likelihoods(rows)
    assert sums[0][0] == pytest.approx(2 * means[0][0])  # a word, and the end
    assert sums[0][2] == pytest.approx(4 * means[0][2])
    assert all(number < 0 for row in sums for number in row)
    best = [row["choices"][numbers.index(max(numbers))] for row, numbers in zip(rows, means, strict=True)]
    assert cell.generate(rows) == best
    assert cell.log_likelihoods(["ant bee"], ["bee cat"], task="swap") == [[pytest.approx(sums[0][1])]]
    assert cell.log_likelihoods(["ant bee", "bee"], [["ant"], ["fox"]], task=["swap", "twice"]) == [
        [pytest.approx(sums[0][0])],
        [pytest.approx(sums[1][0])],
    ]


def cell_length_norm(project: Path) -> float:
    return mhrctl.Project(project).params.evaluate.length_norm


@pytest.mark.parametrize("name", LIVELY)
def test_scores_are_those_of_evaluate(lively: Path, loaded: dict[str, mhrctl.Cell], name: str) -> None:
    rows = rows_of_tests(lively)
    scores = loaded[name].score(rows)
    recorded = json.loads((lively / f"data/metrics/evaluate/{name}.json").read_text())
    assert scores.score > 0
    assert scores.score == pytest.approx(recorded["adapted"]["score"], abs=1e-4)
    assert {task: round(scores.tasks[task][metric], 4) for task, metric in scores.metrics.items()} == {
        task: of_task["adapted"] for task, of_task in recorded["by_task"].items()
    }
    table = pq.read_table(lively / f"data/evaluate/{name}/predictions.parquet").to_pylist()
    before = {(row["task"], row["id"]): row for row in table if row["phase"] == "adapted"}
    assert len(before) == len(rows)
    for row, answer, numbers in zip(rows, scores.answers, scores.rows, strict=True):
        expected = before[row["task"], row["id"]]
        assert (answer, numbers) == (expected["prediction"], {metric: expected[metric] for metric in numbers})
    assert set(scores.rows[0]) == {"rouge_l", "exact_match"}


def test_choices_of_a_row_are_passed_over_where_the_metric_is_of_texts(loaded: dict[str, mhrctl.Cell]) -> None:
    row: mhrctl.Row = {"task": "swap", "input": "ant bee", "target": "ant"}
    cell = loaded["mhr-h4-s0"]
    assert cell.score([{**row, "choices": ["ant", "bee"]}]).answers == cell.score([row]).answers == cell.generate([row])


def test_a_task_that_is_new_here_is_answered_zero_shot_with_a_warning(loaded: dict[str, mhrctl.Cell]) -> None:
    cell = loaded["mhr-h4-s0"]
    rows: list[mhrctl.Row] = [
        {"task": "fresh", "input": "ant", "definition": "swap", "target": "bee", "choices": ("ant", "bee")},
        {"task": "copy", "input": "ant", "target": "ant"},
    ]
    said = "answered zero-shot, as mhr-h4-s0 was not adapted to them"
    with pytest.warns(mhrctl.FallbackWarning, match=rf"^{said}: fresh, copy$") as caught:
        scores = cell.score(rows)
    assert caught[0].filename == __file__
    assert scores.metrics == {"fresh": "accuracy", "copy": "rouge_l"}
    assert set(scores.rows[0]) == {"rouge_l", "exact_match", "accuracy"}
    assert scores.answers[0] in ("ant", "bee")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell.generate(rows)  # of these it was said


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda cell: cell.generate(["a", "b"], task=["swap"]), mhrctl.ParamsError, r"^task: 1 for 2 inputs; give one for all"),
        (lambda cell: cell.generate(["a"], task="swop"), mhrctl.DataError, r"^inputs\[0\]: unknown task 'swop'; did you mean"),
        (
            lambda cell: cell.generate([{"task": "swap", "input": "a"}, "b"]),
            mhrctl.DataError,
            r"^inputs\[1\]: task is missing; ",
        ),
        (lambda cell: cell.generate("ant", task="swap"), mhrctl.ParamsError, r"^inputs: give a list of them, also of one$"),
        (lambda cell: cell.generate({"task": "swap", "input": "a"}), mhrctl.ParamsError, r"^inputs: give a list of them"),
        (lambda cell: cell.generate([3], task="swap"), mhrctl.DataError, r"^inputs\[0\]: should be a text or a row, not 3$"),
        (lambda cell: cell.generate([{"task": "swap"}]), mhrctl.DataError, r"^inputs\[0\]: input is missing$"),
        (lambda cell: cell.generate(["a"], task="swap", beams=0), mhrctl.ParamsError, r"^beams 0: must be 1 or more$"),
        (lambda cell: cell.generate(["a"], task="swap", choices="ab"), mhrctl.ParamsError, r"^choices: give a list of them$"),
        (
            lambda cell: cell.generate(["a"], task="swap", choices=["a", ["b"]]),
            mhrctl.ParamsError,
            r"^choices: give one list of",
        ),
        (
            lambda cell: cell.generate(["a"], task="swap", choices=[["a"], ["b"]]),
            mhrctl.ParamsError,
            r"^choices: 2 for 1 inputs",
        ),
        (
            lambda cell: cell.generate(["a"], task="swap", choices=[" "]),
            mhrctl.DataError,
            r"^inputs\[0\]: choices: one is empty",
        ),
        (
            lambda cell: cell.log_likelihoods(["a"], task="swap"),
            mhrctl.DataError,
            r"^inputs\[0\]: there are no choices to score",
        ),
        (lambda cell: cell.score({"input": "a"}), mhrctl.ParamsError, r"^rows: give a list of them"),
        (lambda cell: cell.score([]), mhrctl.DataError, r"^rows: there are none to score$"),
        (lambda cell: cell.score([{"input": "a"}]), mhrctl.DataError, r"^rows\[0\]: task is missing"),
        (lambda cell: cell.score([{"input": "a"}], task="swap"), mhrctl.DataError, r"^rows\[0\]: give either `target`"),
    ],
)
def test_what_cannot_be_answered_is_named(
    loaded: dict[str, mhrctl.Cell], call: Any, kind: type[mhrctl.MhrctlError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        call(loaded["mhr-h4-s0"])
    assert isinstance(error.value, mhrctl.MhrctlError)
    assert "\n" not in str(error.value)


def test_threads_get_the_answers_that_one_gets(lively: Path) -> None:
    """Of two cells on one backbone, one of which is folded into its weights while it answers."""
    rows = rows_of_tests(lively)
    project = mhrctl.Project(lively)
    cells = {"average": project.cell("mhr-h4-s0", stage="average"), **{name: project.cell(name) for name in LIVELY}}
    assert len({id(cell._predictor._backbone) for cell in cells.values()}) == 1
    expected = {name: cell.generate(rows) for name, cell in cells.items()}
    answers: list[tuple[str, list[str]]] = []

    def ask(name: str) -> None:
        answers.extend((name, cells[name].generate(rows)) for _ in range(3))

    threads = [threading.Thread(target=ask, args=(name,)) for name in [*cells] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 18
    assert all(said == expected[name] for name, said in answers)


def test_a_closed_cell_says_so(lively: Path) -> None:
    with mhrctl.Project(lively).cell("lora-s0") as cell:
        assert cell.card["params"]["cell"]["method"] == cell.method == "lora"
        assert repr(cell) == "<mhrctl.Cell lora-s0, stage adapt>"
    assert repr(cell) == "<mhrctl.Cell lora-s0, stage adapt, closed>"
    for call in (lambda: cell.tasks, lambda: cell.generate(["a"], task="swap"), lambda: cell.score([])):
        with pytest.raises(mhrctl.ParamsError, match=r"^cell lora-s0 is closed; open it again with `Project.cell`$"):
            call()
