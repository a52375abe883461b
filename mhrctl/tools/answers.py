"""`show --cell` looks at the answers that a cell's evaluation has left: prompt, expected, answered, score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mhrctl.artifacts.cards import read_card, require_made_from
from mhrctl.artifacts.names import CARD, PREDICTIONS, TEST_EXAMPLES, Project
from mhrctl.artifacts.reading import reading
from mhrctl.data.table import task_metrics
from mhrctl.errors import ArtifactError, ParamsError, unknown
from mhrctl.evaluation.metrics import title_of
from mhrctl.evaluation.scores import PHASES, Phase

RIGHT = 100.0
"""The score of an answer that is wholly right."""
OF_TEST_TASKS = 3
"""Tasks that are shown where none is named."""


@dataclass(frozen=True)
class Answered:
    """This is what a model has said to an example.

    Attributes:
        label: which cell, or which phase of one.
        text: the answer.
        score: by the task's metric, in percent.
    """

    label: str
    text: str
    score: float

    @property
    def is_wrong(self) -> bool:
        """Whether it is not wholly right."""
        return self.score < RIGHT


@dataclass(frozen=True)
class AnswersShown:
    """These are the answers to an example.

    Attributes:
        task: its name.
        id: of the example.
        number: its place in the task's test split, from 1.
        of: how many these are.
        prompt: what the model has read.
        expected: any of which is right.
        answers: what was said, the last of which counts.
        metric: of the scores, as people read it.
    """

    task: str
    id: str
    number: int
    of: int
    prompt: str
    expected: tuple[str, ...]
    answers: tuple[Answered, ...]
    metric: str


@dataclass(frozen=True)
class AnswersGallery:
    """This is what is shown of answers, and of how many.

    Attributes:
        examples: one after the other, task by task.
        tasks: of which something was asked for.
        all_tasks: test tasks that were evaluated.
        matching: answers of these tasks that are of the kind that was asked for.
        answers: all answers of these tasks.
    """

    examples: Sequence[AnswersShown]
    tasks: int
    all_tasks: int
    matching: int
    answers: int


def show_answers(
    project: Project,
    cell: str,
    *,
    against: str | None = None,
    tasks: Sequence[str] = (),
    wrong: bool = False,
    limit: int = 1,
    every: bool = False,
) -> AnswersGallery:
    """Look at answers to the test splits, in the order of the examples.

    Args:
        project: in which cells were evaluated.
        cell: whose answers; of both phases, unless there is another to compare with.
        against: another cell: only where its answer differs, in the last phase that both have.
        tasks: their names; none are the first test tasks.
        wrong: only where the (last) answer of `cell` is not wholly right.
        limit: examples of a task.
        every: show all tasks, where none is named.

    Raises:
        ArtifactError: if a cell was not evaluated, or on other examples.
        ParamsError: if there is no such task or cell.
    """
    answers = {name: _answers(project, name) for name in dict.fromkeys((cell, *([against] if against else [])))}
    if against == cell:
        raise ParamsError(f"--against {against}: is the same cell; name another")
    known = list(dict.fromkeys(task for task, _ in answers[cell]))
    for name in tasks:
        if name not in known:
            raise ParamsError(f"--task: {unknown('test task', name, known)}")
    chosen = list(dict.fromkeys(tasks)) or (known if every else known[:OF_TEST_TASKS])
    metrics = task_metrics(project.output("prepare"))
    tests = _test_rows(project, chosen)
    examples: list[AnswersShown] = []
    matching = total = 0
    for task in chosen:
        rows = tests[task]
        shown = 0
        for number, row in enumerate(rows, 1):
            total += 1
            said = _said(answers, cell, against, (task, row["id"]), metrics[task])
            if said is None or (wrong and not said[0 if against else -1].is_wrong):
                continue
            matching += 1
            if shown < limit:
                shown += 1
                expected = tuple(answers[cell][task, row["id"]][-1]["references"])
                title = title_of(metrics[task])
                examples.append(AnswersShown(task, row["id"], number, len(rows), row["prompt"], expected, said, title))
    return AnswersGallery(examples, len(chosen), len(known), matching, total)


_ByExample = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]


def _answers(project: Project, cell: str) -> _ByExample:
    """{(task, example): its rows of the predictions, phase by phase}."""
    parent = project.output("evaluate")
    cells = sorted(path.parent.name for path in parent.glob(f"*/{CARD}"))
    if cell not in cells:
        if not cells:
            raise ArtifactError(f"{parent}: no cell was evaluated yet; run `mhrctl evaluate --cell NAME`, or `mhrctl run`")
        raise ParamsError(f"{unknown('evaluated cell', cell, cells)}; `mhrctl evaluate` makes the answers of another")
    folder = parent / cell
    card = read_card(folder, stage="evaluate", command=f"mhrctl evaluate --cell {cell}")
    require_made_from(card, folder, {"prepare": project.output("prepare")})
    with reading(folder / PREDICTIONS):
        rows = pq.read_table(folder / PREDICTIONS).to_pylist()
    by_example: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: PHASES.index(row["phase"])):
        by_example.setdefault((row["task"], row["id"]), []).append(row)
    return by_example


def _test_rows(project: Project, tasks: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """{task: the rows of its test split}, in their order."""
    file: Path = project.output("prepare") / TEST_EXAMPLES
    with reading(file):
        wanted = [("task", "in", tasks), ("split", "==", "test")]
        rows = pq.read_table(file, columns=["task", "id", "prompt"], filters=wanted).to_pylist()
    by_task: dict[str, list[Mapping[str, Any]]] = {task: [] for task in tasks}
    for row in rows:
        by_task[row["task"]].append(row)
    return by_task


def _said(
    answers: Mapping[str, _ByExample], cell: str, against: str | None, example: tuple[str, str], metric: str
) -> tuple[Answered, ...] | None:
    """What was said to an example; None if two cells are compared that have said the same."""
    rows = answers[cell][example]
    if against is None:
        return tuple(Answered(_word(row["phase"]), row["prediction"], row[metric]) for row in rows)
    others = answers[against].get(example, ())
    phases = {row["phase"]: row for row in rows}
    pairs = [(phases[row["phase"]], row) for row in others if row["phase"] in phases]
    if not pairs:
        raise ArtifactError(f"{against}: has no answers to {example[0]}; run `mhrctl evaluate --cell {against} --force`")
    ours, theirs = pairs[-1]
    if ours["prediction"] == theirs["prediction"]:
        return None
    return tuple(Answered(name, row["prediction"], row[metric]) for name, row in ((cell, ours), (against, theirs)))


def _word(phase: Phase) -> str:
    return phase.replace("_", "-")


def records(example: AnswersShown) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an example's answers as JSON holds them."""
    for name in ("task", "id", "number", "of", "prompt", "metric"):
        yield name, getattr(example, name)
    yield "expected", list(example.expected)
    yield (
        "answers",
        {
            said.label.replace("-", "_") if said.label in map(_word, PHASES) else said.label: {
                "answer": said.text,
                "score": round(said.score, 2),
            }
            for said in example.answers
        },
    )
