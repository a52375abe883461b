"""A cell that is loaded answers new inputs, gives log-likelihoods, and scores answers, each row by the adapter of its task."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, TypedDict

from mhrctl.errors import DataError, ParamsError
from mhrctl.progress import silent

if TYPE_CHECKING:
    from mhrctl.evaluation.metrics import Answer
    from mhrctl.tools.asking import Asker, Question
    from mhrctl.tools.predictor import Predictor


class Row(TypedDict, total=False):
    """A row is one input, as a line of `mhrctl predict` or of a task's JSON Lines has it; other keys are passed over.

    Attributes:
        input: what the task is asked.
        task: whose adapter answers.
        definition: of the task, in place of its own.
        choices: to choose from; without them, those that a task's examples all have, where its metric is over choices.
        target: the answer that is right, for `Cell.score`.
        targets: the same, where several are right.
        metric: that scores the answer, of a task that the project has not.
    """

    input: str
    task: str
    definition: str
    choices: Sequence[str]
    target: str
    targets: Sequence[str]
    metric: str


Input: TypeAlias = str | Row | Mapping[str, object]
"""A text, or a row."""


class FallbackWarning(UserWarning):
    """A task was answered by something else than an adapter of its own: zero-shot, or by the average of skills."""


@dataclass(frozen=True)
class Scores:
    """These are scores of answers, in percent.

    Attributes:
        answers: n, in the order of the rows.
        rows: n mappings {metric: score}, of each metric that is recorded of the row's task.
        tasks: {task: {metric: mean over its rows}}.
        metrics: {task: its own metric}.
    """

    answers: list[str]
    rows: list[dict[str, float]]
    tasks: dict[str, dict[str, float]]
    metrics: dict[str, str]

    @property
    def score(self) -> float:
        """The mean over tasks, each by its own metric: what `mhrctl evaluate` and the report call the score."""
        return fmean(self.tasks[task][metric] for task, metric in self.metrics.items())


class Cell:
    """A loaded cell: a backbone with the adapters of all of its tasks.

    `Project.cell` opens it. It can be called from several threads: calls wait for each other, also those of other cells that
    share its backbone. `close`, or the end of a `with`, lets its adapters go, and the backbone with the last of its cells.

    Attributes:
        name: such as `mhr-h8-s0`; of the bare backbone, `backbone`.
        method: a row of the methods table, or `backbone`.
        stage: whose adapters answer: `adapt`, `pretrain` or `average`.
        card: how the adapters were made, as their `card.json` has it; empty of the bare backbone.

    Examples:
        >>> with mhrctl.Project("study").cell("mhr-h8-s0") as cell:  # doctest: +SKIP
        ...     cell.generate(["the film was dull", "I loved it"], task="sentiment")
        ['negative', 'positive']
    """

    def __init__(
        self,
        predictor: Predictor,
        asker: Asker,
        lock: AbstractContextManager[Any],
        *,
        name: str,
        method: str,
        stage: str,
        card: Mapping[str, Any],
    ) -> None:
        self.name, self.method, self.stage, self.card = name, method, stage, card
        self._predictor: Predictor | None = predictor
        self._asker = asker
        self._lock: AbstractContextManager[Any] = lock
        self._noted: frozenset[str] = frozenset()

    @property
    def tasks(self) -> list[str]:
        """The tasks that have an adapter of their own, or a routing; none where one adapter answers every task."""
        return self._opened().tasks

    def generate(
        self,
        inputs: Sequence[str | Row | Mapping[str, object]],
        *,
        task: str | Sequence[str] | None = None,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
        max_new_tokens: int | None = None,
        beams: int | None = None,
    ) -> list[str]:
        """Answer inputs as `mhrctl predict` does, each by the adapter of its task, those of many tasks in one batch.

        Args:
            inputs: n texts, or rows.
            task: of all of them, or n names; None takes that of each row.
            choices: of all of them, or n lists; None takes those of each row, or of its task. With choices the answer is the
                best-scored one, else it is generated.
            max_new_tokens: longest answer; None takes `evaluate.max_new_tokens`.
            beams: of generation, 1 is greedy; None takes `evaluate.beams`.

        Returns:
            n texts.

        Raises:
            DataError: if a row cannot be answered; it is named, such as `inputs[3]`.
            ParamsError: if there are not as many tasks or choices as inputs.
            DivergedError: if what the model computes is not finite.

        Warns:
            FallbackWarning: if a task has no adapter and is answered zero-shot, or by the average of the skills.

        Examples:
            >>> cell.generate(["France", {"input": "dull", "task": "sentiment"}], task=["capital", "sentiment"])
            ... # doctest: +SKIP
            ['Paris', 'negative']
        """
        questions = self._questions(inputs, task, choices)
        return [answer.text for answer in self._answers(questions, beams=beams, max_new_tokens=max_new_tokens)]

    def log_likelihoods(
        self,
        inputs: Sequence[str | Row | Mapping[str, object]],
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        task: str | Sequence[str] | None = None,
        length_norm: float = 0.0,
    ) -> list[list[float]]:
        """Compute how likely each choice is as the answer to its input: natural logarithms, of all of its tokens together.

        The end token counts as a token, and a text is cut to `prepare.max_target_tokens`.

        Args:
            inputs: n texts, or rows.
            choices: of all of them, or n lists, of the texts to score; None takes those of each row, or of its task.
            task: as of `generate`.
            length_norm: each is divided by its number of tokens to this power: 0 is the sum, 1 the mean over tokens. With
                `evaluate.length_norm` these are the scores of `mhrctl predict --scores`.

        Returns:
            n lists, of a number for each choice, of which the largest is best.

        Raises:
            DataError: if a row cannot be scored, or has no choices; it is named.
            ParamsError: if there are not as many tasks or choices as inputs.
            DivergedError: if what the model computes is not finite.

        Warns:
            FallbackWarning: as of `generate`.

        Examples:
            >>> cell.log_likelihoods(["I loved it"], ["positive", "negative"], task="sentiment")  # doctest: +SKIP
            [[-0.21, -4.08]]
        """
        questions = self._questions(inputs, task, choices)
        for question in questions:
            if not question.choices:
                raise DataError(f"{question.where}: there are no choices to score; give `choices`")
        return [list(answer.scores) for answer in self._answers(questions, length_norm=length_norm)]

    def score(
        self,
        rows: Iterable[Row | Mapping[str, object]],
        *,
        task: str | Sequence[str] | None = None,
        max_new_tokens: int | None = None,
        beams: int | None = None,
    ) -> Scores:
        """Answer rows, and score the answers against what is right, by the metrics of their tasks, as `mhrctl evaluate` does.

        Args:
            rows: with `input`, and `target` or `targets`, of which the best counts, as a line of a task's JSON Lines.
            task: as of `generate`.
            max_new_tokens: as of `generate`.
            beams: as of `generate`.

        Returns:
            The answers, and scores by row and by task.

        Raises:
            DataError: if a row is none, or cannot be answered; it is named, such as `rows[3]`. If there are no rows.
            ParamsError: if there are not as many tasks as rows.
            DivergedError: if what the model computes is not finite.

        Warns:
            FallbackWarning: as of `generate`.

        Examples:
            >>> cell.score([{"task": "capital", "input": "France", "target": "Paris"}]).score  # doctest: +SKIP
            100.0
        """
        from mhrctl.tools.scoring import scored, to_score

        self._opened()
        given = _listed("rows", rows)
        where = [f"rows[{place}]" for place in range(len(given))]
        fields = [self._fields(*each) for each in zip(where, given, _each("task", task, given), strict=True)]
        with self._lock:
            asked = to_score(self._asker, fields, where)
            answers = self._answers([each.question for each in asked], beams=beams, max_new_tokens=max_new_tokens)
        return Scores(*scored(asked, answers))

    def close(self) -> None:
        """Let the adapters go, and the backbone if no other cell shares it."""
        self._predictor, self._lock = None, nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<mhrctl.Cell {self.name}, stage {self.stage}{'' if self._predictor else ', closed'}>"

    def _opened(self) -> Predictor:
        if self._predictor is None:
            raise ParamsError(f"cell {self.name} is closed; open it again with `Project.cell`")
        return self._predictor

    def _questions(
        self,
        inputs: Sequence[Input],
        task: str | Sequence[str] | None,
        choices: Sequence[str] | Sequence[Sequence[str]] | None,
    ) -> list[Question]:
        given = _listed("inputs", inputs)
        tasks, lists = _each("task", task, given), _choices_of_each(choices, given)
        with self._lock:
            return [
                self._asker.asked(self._fields(f"inputs[{place}]", *each), f"inputs[{place}]")
                for place, each in enumerate(zip(given, tasks, lists, strict=True))
            ]

    def _fields(self, where: str, row: Input, task: str | None, choices: Sequence[str] | None = None) -> dict[str, Any]:
        """The fields of a row, with what stands beside it in a call."""
        if not isinstance(row, (str, Mapping)):
            raise DataError(f"{where}: should be a text or a row, not {row!r:.40}")
        fields: dict[str, Any] = {"input": row} if isinstance(row, str) else dict(row)
        fields |= {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        if task is not None:
            fields["task"] = task
        if choices is not None:
            fields["choices"] = list(choices)
        if fields.get("task") is None:
            raise DataError(f"{where}: task is missing; name it in the row, or with `task`")
        return fields

    def _answers(self, questions: Sequence[Question], **how: Any) -> list[Answer]:  # noqa: ANN401 - fields of Generation
        """Answer questions.

        Args:
            questions: in their order.
            **how: of answers; what is None is as the cell has it.

        Raises:
            ParamsError: if a number of them is none that there can be.
        """
        for name in ("beams", "max_new_tokens"):
            if (number := how.get(name)) is not None and number < 1:
                raise ParamsError(f"{name} {number}: must be 1 or more")
        with self._lock:
            predictor = self._opened()
            generation = replace(predictor.generation, **{name: value for name, value in how.items() if value is not None})
            predictor.require(questions)
            prompts = self._asker.prompts(questions) if predictor.reads_prompts else ()
            with silent("", 0) as bar:
                samples = self._asker.samples(questions)
                answers = predictor.answers(questions, samples, bar, generation=generation, prompts=prompts)
            notes = [note for note in predictor.notes if note not in self._noted]
            self._noted |= frozenset(notes)
        for note in notes:
            warnings.warn(note, FallbackWarning, stacklevel=3)
        return answers


def _listed(argument: str, inputs: Iterable[Input]) -> list[Input]:
    if isinstance(inputs, (str, Mapping)):
        _refuse(argument, "give a list of them, also of one")
    return list(inputs)


def _each(argument: str, value: str | Sequence[str] | None, inputs: Sequence[Any]) -> list[str | None]:
    """What is said for all inputs, or for each."""
    if value is None or isinstance(value, str):
        return [value] * len(inputs)
    return list(_as_many(argument, value, inputs))


def _choices_of_each(
    choices: Sequence[str] | Sequence[Sequence[str]] | None, inputs: Sequence[Any]
) -> list[Sequence[str] | None]:
    if choices is None:
        return [None] * len(inputs)
    if isinstance(choices, str):
        _refuse("choices", "give a list of them")
    if all(isinstance(each, str) for each in choices):
        return [[str(each) for each in choices]] * len(inputs)
    if any(isinstance(each, str) for each in choices):
        _refuse("choices", "give one list of texts for all inputs, or a list of texts for each")
    return list(_as_many("choices", choices, inputs))


def _as_many(argument: str, values: Sequence[Any], inputs: Sequence[Any]) -> Sequence[Any]:
    if len(values) != len(inputs):
        raise ParamsError(f"{argument}: {len(values)} for {len(inputs)} inputs; give one for all, or one for each")
    return values


def _refuse(argument: str, what_to_do: str) -> NoReturn:
    raise ParamsError(f"{argument}: {what_to_do}")
