"""Rows with what is right are answered and scored by the metrics of their tasks, as the evaluate stage scores test splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from mhrctl.errors import DataError, unknown
from mhrctl.evaluation.metrics import METRICS, OVER_CHOICES, Answer, References, recorded_metrics
from mhrctl.evaluation.text_scores import ENGLISH
from mhrctl.suites.jsonl import Line
from mhrctl.suites.reading import describe
from mhrctl.tools.asking import Asker, Question


@dataclass(frozen=True)
class ToScore:
    """This is a row whose answer will be scored.

    Attributes:
        question: to be answered.
        references: what is right.
        metric: of the task.
    """

    question: Question
    references: References
    metric: str


def to_score(asker: Asker, rows: Sequence[Mapping[str, Any]], where: Sequence[str]) -> list[ToScore]:
    """Read rows.

    Args:
        asker: puts their inputs into prompts.
        rows: each with the fields of a line of JSON Lines, of which it may have others.
        where: names each in errors.

    Raises:
        DataError: if there are none, or one is no example, has a metric that there is not, or another than its task.
    """
    if not rows:
        raise DataError("rows: there are none to score")
    asked = [_read(asker, row, place) for row, place in zip(rows, where, strict=True)]
    metrics: dict[str, str] = {}
    for each in asked:
        if metrics.setdefault(each.question.task, each.metric) != each.metric:
            other = metrics[each.question.task]
            raise DataError(f"{each.question.where}: metric {each.metric!r}: other rows of {each.question.task} have {other!r}")
    return asked


def _read(asker: Asker, row: Mapping[str, Any], where: str) -> ToScore:
    try:
        line = Line.model_validate({name: value for name, value in row.items() if name in Line.model_fields})
    except ValidationError as error:
        raise DataError(f"{where}: {describe(error, Line)}") from None
    known = asker.tasks.get(str(line.task), {})
    metric = _metric(line, known.get("metric"), where)
    fields = {name: getattr(line, name) for name in ("input", "task", "definition", "choices")}
    if not OVER_CHOICES[metric]:
        fields["choices"] = None
    question = asker.asked(fields, where)
    if OVER_CHOICES[metric] and not question.choices:
        raise DataError(f"{where}: metric {metric!r} is over answer choices; give `choices`, or another metric")
    references = References.among(question.choices, line.references, str(known.get("rouge_tokenizer", ENGLISH)))
    return ToScore(question, references, metric)


def _metric(line: Line, of_task: str | None, where: str) -> str:
    """The metric of a row: that of its task, or of a task that the project has not, as JSON Lines say it.

    Raises:
        DataError: if there is no such metric, or the task has another.
    """
    if line.metric is not None and line.metric not in METRICS:
        raise DataError(f"{where}: {unknown('metric', line.metric, METRICS)}")
    if of_task and line.metric not in (None, of_task):
        raise DataError(f"{where}: metric {line.metric!r}: task {line.task} has {of_task!r}; leave it out")
    return of_task or line.metric or ("accuracy" if line.choices else "rouge_l")


def scored(
    asked: Sequence[ToScore], answers: Sequence[Answer]
) -> tuple[list[str], list[dict[str, float]], dict[str, dict[str, float]], dict[str, str]]:
    """Score answers, in percent.

    Returns:
        The texts of the answers; {metric: score} of each; {task: {metric: mean}}; {task: its metric}.
    """
    rows = [
        {name: METRICS[name].score(answer, each.references) for name in recorded_metrics([each.metric])}
        for each, answer in zip(asked, answers, strict=True)
    ]
    metrics = {each.question.task: each.metric for each in asked}
    tasks = {}
    for task, metric in metrics.items():
        of_task = [row for row, each in zip(rows, asked, strict=True) if each.question.task == task]
        tasks[task] = {name: fmean(row[name] for row in of_task) for name in recorded_metrics([metric])}
    return [answer.text for answer in answers], rows, tasks, metrics
