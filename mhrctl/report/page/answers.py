"""A few wrong answers of each task are shown, with the prompt and what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mhrctl.artifacts.cards import known_digest, try_card
from mhrctl.artifacts.names import PREDICTIONS, TEST_EXAMPLES
from mhrctl.artifacts.reading import reading
from mhrctl.errors import ArtifactError
from mhrctl.evaluation.metrics import title_of
from mhrctl.report.results import Results
from mhrctl.report.verdict import best

SHOWN = 3
"""Answers of a task."""
RIGHT = 100.0
"""A score that leaves nothing to be wished for, in percent."""
BEGINNING, ENDING = 700, 900
"""Characters of a long prompt that are shown."""
COLUMNS = ("task", "phase", "id", "prediction", "references")
CUT = "\n[...]\n"


@dataclass(frozen=True)
class WrongAnswer:
    """This is an answer that is not wholly right.

    Attributes:
        prompt: what the model was asked; None where the examples are not at hand.
        expected: any of these would have been right.
        answer: what it said.
        score: by the task's metric.
    """

    prompt: str | None
    expected: Sequence[str]
    answer: str
    score: str


@dataclass(frozen=True)
class TaskAnswers:
    """These are the worst answers to a task.

    Attributes:
        task: name.
        wrong: how many answers are not wholly right.
        examples: how many answers there are.
        shown: the first of those with the lowest score.
    """

    task: str
    wrong: int
    examples: int
    shown: Sequence[WrongAnswer]


@dataclass(frozen=True)
class WrongAnswers:
    """These are the wrong answers of a cell.

    Attributes:
        note: whose they are, or why there are none.
        tasks: those that have any.
    """

    note: str
    tasks: Sequence[TaskAnswers] = ()


def wrong_answers(results: Results, data: Path) -> WrongAnswers | None:
    """Collect wrong answers of the method with the highest mean, of its first seed whose answers are at hand.

    Args:
        results: ours.
        data: the project's `data` folder.

    Returns:
        None where nothing is adapted.
    """
    first = best(results)
    if not first:
        return None
    cell = next((name for name in first[0].cells if (data / "evaluate" / name / PREDICTIONS).exists()), None)
    if cell is None:
        return WrongAnswers(f"Wrong answers are not shown: those of {first[0].label} are not here.")
    metrics = {task: of.metric for task, of in first[0].cells[cell].by_task.items()}
    try:
        tasks = [task for task in _read(data, cell, metrics) if task.wrong]
    except ArtifactError as error:
        return WrongAnswers(f"Wrong answers are not shown: {error}")
    return WrongAnswers(f"Wrong answers of {cell} (highest mean) after adaptation: the worst of each task", tasks)


def _read(data: Path, cell: str, metrics: Mapping[str, str]) -> Iterator[TaskAnswers]:
    file = data / "evaluate" / cell / PREDICTIONS
    with reading(file):
        table = pq.ParquetFile(file).read([*COLUMNS, *dict.fromkeys(metrics.values())])
        # Arrow would import pandas to compare with a word of Python's, or to make an array of numbers, which takes longer.
        places: dict[str, list[int]] = {task: [] for task in metrics}
        for place, (task, phase) in enumerate(zip(table["task"].to_pylist(), table["phase"].to_pylist(), strict=True)):
            if phase == "adapted" and task in places:
                places[task].append(place)
        worst = {task: _worst(table, places[task], metric) for task, metric in metrics.items()}
    prompts = _prompts(data, cell, [row["id"] for _, _, rows in worst.values() for row in rows])
    for task, (wrong, examples, rows) in sorted(worst.items()):
        shown = [_wrong_answer(row, prompts.get((task, row["id"])), metrics[task]) for row in rows]
        yield TaskAnswers(task, wrong, examples, shown)


def _worst(answers: pa.Table, places: Sequence[int], metric: str) -> tuple[int, int, list[dict[str, Any]]]:
    """How many answers of a task are wrong, of how many, and the worst; of equal ones the first."""
    values = answers[metric].to_pylist()
    scores = np.array([values[place] for place in places], np.float64)
    order = np.argsort(scores, kind="stable")[:SHOWN].tolist()
    rows = [answers.slice(places[at], 1).to_pylist()[0] for at in order if scores[at] < RIGHT]
    return int((scores < RIGHT).sum()), len(scores), rows


def _wrong_answer(row: Mapping[str, Any], prompt: str | None, metric: str) -> WrongAnswer:
    whole = prompt is None or len(prompt) <= BEGINNING + ENDING
    shown = prompt if whole or prompt is None else f"{prompt[:BEGINNING]}{CUT}{prompt[-ENDING:]}"
    return WrongAnswer(shown, row["references"], row["prediction"], f"{title_of(metric)} {row[metric]:.1f}")


def _prompts(data: Path, cell: str, ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """{(task, id): prompt} of examples; {} where the examples at hand are not those that were answered."""
    file, card = data / "prepare" / TEST_EXAMPLES, try_card(data / "evaluate" / cell)
    if not file.exists() or card is None or card.parents.get("examples") != known_digest(file):
        return {}
    with reading(file):
        table = pq.ParquetFile(file).read(["task", "id", "prompt"])
    wanted = set(ids)
    places = [place for place, name in enumerate(table["id"].to_pylist()) if name in wanted]
    return {(table["task"][place].as_py(), table["id"][place].as_py()): table["prompt"][place].as_py() for place in places}
