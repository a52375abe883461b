"""Rows are read as lines of a task are, and scored by the metrics of their tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.evaluation.metrics import Answer
from mhrctl.stages.prepare import prepare
from mhrctl.tools.asking import Asker
from mhrctl.tools.scoring import ToScore, scored, to_score

ROW = {"task": "swap", "input": "ant bee", "target": "ant"}


@pytest.fixture
def asker(project: Path) -> Asker:
    where = Project(project)
    rows = [
        {"input": f"ant {number}", "target": "fox" if number % 2 else "elk", "choices": ["fox", "elk"]} for number in range(12)
    ]
    (project / "tasks/test/chosen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = PrepareParams.model_validate({"source": "jsonl", "path": "tasks", "tokenizer": "word", "examples": 4})
    prepare(params, root=project, out=where.output("prepare"), scratch=where.scratch)
    return Asker(where)


def read(asker: Asker, *rows: dict[str, Any]) -> list[ToScore]:
    return to_score(asker, rows, [f"rows[{place}]" for place in range(len(rows))])


def test_a_row_has_the_metric_and_the_choices_of_its_task(asker: Asker) -> None:
    text, chosen, several = read(
        asker,
        {**ROW, "choices": ["ant", "bee"], "of": "no concern"},
        {"task": "chosen", "input": "ant", "target": "elk"},
        {"task": "chosen", "input": "ant", "targets": ["elk", "fox"], "choices": ["fox", "elk"], "metric": "accuracy"},
    )
    assert (text.metric, text.question.choices, text.references.texts) == ("rouge_l", (), ("ant",))
    assert (chosen.metric, chosen.question.choices, set(chosen.references.places)) == ("accuracy", ("fox", "elk"), {1})
    assert set(several.references.places) == {0, 1}


def test_a_task_that_is_new_here_has_the_metric_that_its_lines_would_give_it(asker: Asker) -> None:
    new = {"task": "new", "definition": "say it", "input": "ant", "target": "ant"}
    assert read(asker, new)[0].metric == "rouge_l"
    assert read(asker, {**new, "choices": ["ant", "bee"]})[0].metric == "accuracy"
    assert read(asker, {**new, "metric": "f1"})[0].metric == "f1"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"^rows: there are none to score$"),
        ([{**ROW, "target": " "}], r"^rows\[0\]: a target is empty$"),
        ([ROW, {"task": "swap", "input": "a"}], r"^rows\[1\]: give either `target` \(a string\) or `targets`"),
        ([{**ROW, "input": 3}], r"^rows\[0\]: input: Input should be a valid string, not 3$"),
        ([{**ROW, "choices": ["bee"]}], r"^rows\[0\]: target 'ant' is not one of the choices"),
        ([{**ROW, "metric": "bleu"}], r"^rows\[0\]: unknown metric 'bleu'"),
        ([{**ROW, "metric": "f1"}], r"^rows\[0\]: metric 'f1': task swap has 'rouge_l'; leave it out$"),
        ([{**ROW, "task": "new"}], r"^rows\[0\]: unknown task 'new'.*give the `definition`$"),
        (
            [{**ROW, "task": "new", "definition": "", "metric": "accuracy"}],
            r"^rows\[0\]: metric 'accuracy' is over answer choices; give `choices`, or another metric$",
        ),
        (
            [{**ROW, "task": "new", "definition": "", "metric": metric} for metric in ("f1", "rouge_l")],
            r"^rows\[1\]: metric 'rouge_l': other rows of new have 'f1'$",
        ),
    ],
)
def test_what_cannot_be_scored_is_named(asker: Asker, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(asker, *rows)


def test_scores_are_means_of_each_task(asker: Asker) -> None:
    asked = read(
        asker,
        ROW,
        {"task": "chosen", "input": "ant", "target": "elk"},
        {**ROW, "targets": ["bee", "cat dog"], "target": None},
    )
    answers = [Answer("Ant."), Answer("elk", 1, (-2.0, -1.0)), Answer("cat elk")]
    texts, rows, tasks, metrics = scored(asked, answers)
    assert texts == ["Ant.", "elk", "cat elk"]
    assert rows == [
        {"rouge_l": 100.0, "exact_match": 100.0},
        {"rouge_l": 100.0, "exact_match": 100.0, "accuracy": 100.0},
        {"rouge_l": 50.0, "exact_match": 0.0},
    ]
    assert tasks == {
        "swap": {"rouge_l": 75.0, "exact_match": 50.0},
        "chosen": {"rouge_l": 100.0, "exact_match": 100.0, "accuracy": 100.0},
    }
    assert metrics == {"swap": "rouge_l", "chosen": "accuracy"}
