"""New inputs become prompts as the prepare stage makes them: the lines that `predict` reads, with the words of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import PreTrainedTokenizerBase

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import TASKS, TOKENIZER, Project
from mhrctl.artifacts.reading import read_json_of, reading
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import PrepareParams
from mhrctl.data.examples import Examples, Sample
from mhrctl.data.rows import SCHEMA, Encoder
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import DataError, unknown
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import Track, silent
from mhrctl.stages.prepare import FILES, prompt_of
from mhrctl.suites.reading import describe, parse
from mhrctl.suites.source import source_module
from mhrctl.suites.task import Example, Suite, Task

T = TypeVar("T")


class Line(BaseModel):
    """A line asks for one answer; what else it holds is handed through."""

    model_config = ConfigDict(frozen=True, strict=True)

    input: str
    task: str | None = None
    definition: str | None = None
    choices: list[str] | None = None


@dataclass(frozen=True)
class Question:
    """A question is a line that can be answered.

    Attributes:
        where: file and number of the line.
        line: all that it holds.
        input: of the task.
        task: whose adapter answers.
        definition: of the task, in the prompt.
        choices: to choose from; none where the answer is generated.
    """

    where: str
    line: Mapping[str, Any]
    input: str
    task: str
    definition: str
    choices: tuple[str, ...]


class Asker:
    """It reads lines and puts them into prompts, by what the prepare stage recorded of itself.

    Attributes:
        tokenizer: of the project.
        tasks: {name: row of the task table}.
    """

    def __init__(self, project: Project, *, task: str | None = None, default: str | None = None, track: Track = silent) -> None:
        """Look at what the prepare stage has made.

        Args:
            project: in which it has run.
            task: of every line, whatever the line says; None takes the line's.
            default: the task of a line that names none; None is no task.
            track: shows that the source is read, which has the definitions.

        Raises:
            ArtifactError: if it has not run.
        """
        self._project, self._only, self._default, self._track = project, task, default, track
        self._prepared = project.output("prepare")
        card = read_card(self._prepared, stage="prepare", command="mhrctl prepare")
        self._params = _params_in(card.params)
        self._table = read_json_of(self._prepared / TASKS)
        self.tasks: dict[str, Mapping[str, Any]] = {row["name"]: row for row in self._table["tasks"]}
        self.tokenizer: PreTrainedTokenizerBase = saved_tokenizer(self._prepared / TOKENIZER)
        self._encoders: dict[tuple[str, str], Encoder] = {}
        self._choices: dict[str, tuple[str, ...]] = {}

    def question(self, text: str, path: Path, number: int) -> Question:
        """Read a line.

        Args:
            text: the line.
            path: of its file, for errors.
            number: of the line.

        Raises:
            DataError: if it cannot be answered: it is no JSON, has no input, names a task that nobody knows.
        """
        return self.asked(parse(text, path, number), f"{path}:{number}")

    def asked(self, content: Any, where: str) -> Question:  # noqa: ANN401 - JSON is any tree
        """Make a question of what a line holds.

        Args:
            content: the fields of the line.
            where: names it in errors.

        Raises:
            DataError: if it cannot be answered: it has no input, names a task that nobody knows.
        """
        try:
            line = Line.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{where}: {describe(error, Line)}") from None
        name = self._only or line.task or self._default
        if name is None:
            raise DataError(f"{where}: task is missing; name it in the line, or that of all lines with --task")
        if name not in self.tasks and line.definition is None:
            raise DataError(f"{where}: {unknown('task', name, self.tasks)}; of a task that is new here, give the `definition`")
        if line.choices is not None and not (line.choices and all(text.strip() for text in line.choices)):
            raise DataError(f"{where}: choices: one is empty, or there are none; leave `choices` out for a generated answer")
        definition = self._definition(name) if line.definition is None else line.definition
        choices = tuple(line.choices or ()) or self._choices_of(name, where)
        return Question(where, content, line.input, name, definition, choices)

    def samples(self, questions: Sequence[Question]) -> list[Sample]:
        """Return the tokens of questions, and of the choices that they have.

        Raises:
            DataError: if a prompt has no token, or cannot be cut to what is allowed.
        """
        return self._of_each(questions, Examples.scored)

    def prompts(self, questions: Sequence[Question]) -> list[str]:
        """Return the texts whose tokens `samples` has.

        Raises:
            DataError: as of `samples`.
        """
        return self._of_each(questions, lambda examples: examples.column("prompt"))

    def _of_each(self, questions: Sequence[Question], take: Callable[[Examples], list[T]]) -> list[T]:
        """What is taken of each question's example as the prepare stage would have made it."""
        taken: dict[int, T] = {}
        by_prompt: dict[tuple[str, str], list[int]] = {}
        for place, question in enumerate(questions):
            by_prompt.setdefault((question.task, question.definition), []).append(place)
        for (name, definition), places in by_prompt.items():
            encoder = self._encoder(name, definition)
            examples = [_example(questions[place]) for place in places]
            table = encoder.table([("test", example, 0) for example in examples], SCHEMA)
            taken.update(zip(places, take(Examples(table, [name])), strict=True))
        return [taken[place] for place in range(len(questions))]

    def _encoder(self, name: str, definition: str) -> Encoder:
        if (name, definition) not in self._encoders:
            params = self._params
            task = replace(self._known.get(name) or _bare(name), name=name, definition=definition)
            put = prompt_of(task, params, self._suite.prompter if self._suite else None, self.tokenizer)
            limits = params.max_input_tokens, params.max_target_tokens
            self._encoders[name, definition] = Encoder(name, put, self.tokenizer, *limits, params.framing, chat=params.chat)
        return self._encoders[name, definition]

    def _definition(self, name: str) -> str:
        if SOURCES[self._params.source].prompts == "input" or not self._params.definition:
            return ""
        task = self._known.get(name) or self._read.get(name)
        if task is None:
            raise DataError(f"task {name}: is no longer in {self._params.path or 'its source'}; give `definition` in the lines")
        return task.definition

    @property
    def _suite(self) -> Suite | None:
        """The source's tasks, where its prompts need more than a definition."""
        return self._source if self._suite_is_needed else None

    @property
    def _suite_is_needed(self) -> bool:
        return SOURCES[self._params.source].prompts == "own"

    @property
    def _known(self) -> Mapping[str, Task]:
        return self._read if self._suite else {}

    @cached_property
    def _read(self) -> Mapping[str, Task]:
        return {task.name: task for task in self._source.tasks}

    @cached_property
    def _source(self) -> Suite:
        read = source_module(self._params.source).read
        try:
            return read(self._params, self._project.root, metrics=OVER_CHOICES, track=self._track)
        except DataError as error:
            if self._suite_is_needed:
                raise
            raise DataError(f"{error}; or give `definition` in the lines") from error

    def _choices_of(self, name: str, where: str) -> tuple[str, ...]:
        """The choices of a task whose answers are chosen; nothing of any other.

        Raises:
            DataError: if they differ from example to example.
        """
        row = self.tasks.get(name)
        if row is None or not OVER_CHOICES[row["metric"]]:
            return ()
        if name not in self._choices:
            file = self._prepared / FILES[row["role"]]
            with reading(file):
                rows = pq.read_table(file, columns=["choices"], filters=[("task", "==", name)])["choices"].to_pylist()
            every = set(map(tuple, rows))
            self._choices[name] = every.pop() if len(every) == 1 else ()
        if not self._choices[name]:
            raise DataError(f"{where}: the choices of task {name} differ from example to example; give `choices` in the line")
        return self._choices[name]


def _params_in(recorded: Mapping[str, Any]) -> PrepareParams:
    """The settings that a card holds, of which those at their defaults were not set."""
    optional = {name: field.default for name, field in PrepareParams.model_fields.items() if not field.is_required()}
    defaults = PrepareParams.model_construct(**optional).model_dump()
    return PrepareParams.model_validate({name: value for name, value in recorded.items() if value != defaults.get(name)})


def _bare(name: str) -> Task:
    return Task(name, "test", "rouge_l", "", [])


def _example(question: Question) -> Example:
    """A question as an example whose target is never looked at."""
    return Example(question.where, question.input, question.choices[:1] or ("",), question.choices)
