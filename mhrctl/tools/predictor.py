"""A predictor answers questions: many tasks in a batch, each row by the adapter of its task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.config.sections import EvaluateParams
from mhrctl.data.examples import Sample
from mhrctl.errors import DataError, DivergedError, listed
from mhrctl.evaluation.answering import folded_if_shared
from mhrctl.evaluation.metrics import Answer
from mhrctl.evaluation.prediction import Generation, answer
from mhrctl.evaluation.router import Router
from mhrctl.models.precision import set_precision
from mhrctl.progress import Bar
from mhrctl.tools.asking import Question
from mhrctl.training.execution import Execution

NAMED = 5
"""Tasks that a note names."""
UNEVEN = 2
"""Tasks go into one batch whose numbers of rows differ by this factor at most, since the shorter ones are filled up."""


@dataclass(frozen=True)
class Fitted:
    """An adapter, and the tasks that it is for.

    Attributes:
        adapter: of all of them; None is the bare backbone, or a router.
        places: {task: its run, or the row of the routing}; None where the adapter answers every task alike.
        is_routed: whether the places are rows of the routing of one run.
        note: what to say of the tasks that it answers.
        router: that composes an adapter for each question, in place of one.
    """

    adapter: Adapter | None
    places: Mapping[str, int] | None = None
    is_routed: bool = False
    note: str | None = None
    router: Router | None = None

    @property
    def is_shared(self) -> bool:
        """Whether all rows of a batch get the same."""
        return self.adapter is None or (self.adapter.runs == 1 and not self.is_routed)


class Predictor:
    """It answers questions by the adapters of their tasks.

    Attributes:
        name: of the cell, or of what answers in its place.
        generation: how answers come about, unless a call says otherwise.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        adapters: Sequence[Fitted],
        *,
        name: str,
        params: EvaluateParams,
        execution: Execution,
    ) -> None:
        """Put the backbone, with the adapters attached, where it runs.

        Args:
            backbone: with slots for all of them.
            tokenizer: of the project.
            adapters: a task is answered by the first that is for it.
            name: of the cell, or of what answers in its place.
            params: precision, beams and lengths.
            execution: how to run.
        """
        self._adapters, self._tokenizer, self.name, self._execution = list(adapters), tokenizer, name, execution
        self.generation = Generation(params.beams, params.max_new_tokens, params.length_norm)
        self._backbone = backbone
        set_precision(backbone, params.precision)
        execution.place(backbone)
        self._answered_by: dict[int, dict[str, None]] = {}

    def require(self, questions: Sequence[Question]) -> None:
        """Check that there is an adapter for each question.

        Raises:
            DataError: naming the line of the first without.
        """
        for question in questions:
            self._fitted(question)

    @property
    def tasks(self) -> list[str]:
        """The tasks that have an adapter of their own, or a routing; none where the same answers all."""
        return list(dict.fromkeys(task for fitted in self._adapters for task in fitted.places or ()))

    @property
    def reads_prompts(self) -> bool:
        """Whether answers depend on the texts of prompts, and not on their tokens and tasks alone."""
        return any(fitted.router for fitted in self._adapters)

    def answers(
        self,
        questions: Sequence[Question],
        samples: Sequence[Sample],
        bar: Bar,
        *,
        generation: Generation | None = None,
        prompts: Sequence[str] = (),
    ) -> list[Answer]:
        """Answer questions, in their order.

        Args:
            questions: of any tasks.
            samples: their tokens.
            bar: advances with each that is answered.
            generation: how answers come about; None for what the predictor was made with.
            prompts: their texts, if the predictor reads them.

        Raises:
            DataError: if a task has no adapter.
            DivergedError: if what the model computes is not finite.
        """
        generation = generation or self.generation
        answers: dict[int, Answer] = {}
        by_adapter: dict[int, list[int]] = {}
        for place, question in enumerate(questions):
            by_adapter.setdefault(self._fitted(question), []).append(place)
        for number, places in by_adapter.items():
            fitted = self._adapters[number]
            self._answered_by.setdefault(number, {}).update(dict.fromkeys(questions[place].task for place in places))
            if fitted.router:
                answers |= self._routed(fitted.router, places, questions, samples, prompts, generation)
                bar.advance(len(places))
                continue
            with folded_if_shared(self._backbone, fitted.adapter, self._execution.speed) as attached:
                for batch in self._batches(fitted, questions, places):
                    answers |= self._answered(replace(fitted, adapter=attached), batch, questions, samples, generation)
                    bar.advance(sum(map(len, batch)))
        return [answers[place] for place in range(len(questions))]

    def _fitted(self, question: Question) -> int:
        for number, fitted in enumerate(self._adapters):
            if fitted.places is None or question.task in fitted.places:
                return number
        raise DataError(f"{question.where}: {self.name} has no adapter for task {question.task}; it has {listed(self.tasks)}")

    @property
    def notes(self) -> list[str]:
        """What whoever reads the answers should know, a line each."""
        named = [(fitted, list(self._answered_by.get(number, ()))) for number, fitted in enumerate(self._adapters)]
        return [f"{fitted.note}: {listed(tasks, NAMED)}" for fitted, tasks in named if fitted.note and tasks]

    def _batches(self, fitted: Fitted, questions: Sequence[Question], places: Sequence[int]) -> Iterator[list[list[int]]]:
        """Questions that are answered together: those of each of several runs."""
        runs: dict[tuple[str, bool], list[int]] = {}
        for place in places:
            question = questions[place]
            runs.setdefault(("" if fitted.is_shared else question.task, bool(question.choices)), []).append(place)
        together = self._execution.together(fitted.adapter)
        batch: list[list[int]] = []
        for run in sorted(runs.values(), key=len, reverse=True):
            if batch and (len(batch) == together or len(run) * UNEVEN < len(batch[0])):
                yield batch
                batch = []
            batch.append(run)
        if batch:
            yield batch

    def _routed(
        self,
        router: Router,
        places: Sequence[int],
        questions: Sequence[Question],
        samples: Sequence[Sample],
        prompts: Sequence[str],
        generation: Generation,
    ) -> dict[int, Answer]:
        answers = router.answers(
            [questions[place].task for place in places],
            [prompts[place] for place in places],
            [samples[place] for place in places],
            [questions[place].choices for place in places],
            backbone=self._backbone,
            tokenizer=self._tokenizer,
            generation=generation,
            execution=self._execution,
        )
        return dict(zip(places, answers, strict=True))

    def _answered(
        self,
        fitted: Fitted,
        batch: Sequence[Sequence[int]],
        questions: Sequence[Question],
        samples: Sequence[Sample],
        generation: Generation,
    ) -> dict[int, Answer]:
        adapter, routing = fitted.adapter, None
        names = [questions[run[0]].task for run in batch]
        if adapter is not None and fitted.places is not None:
            chosen = [fitted.places[name] for name in names]
            if fitted.is_routed:
                routing = [chosen]
            elif adapter.runs > 1:
                adapter = adapter.select(chosen)
        try:
            answers = answer(
                self._execution.adapted(self._backbone, adapter),
                self._tokenizer,
                [[samples[place] for place in run] for run in batch],
                [[questions[place].choices for place in run if questions[place].choices] for run in batch],
                generation=generation,
                device=self._execution.accelerator.device,
                names=names,
                routing=routing,
            )
        except DivergedError as error:
            raise DivergedError(f"{self.name}: {error}: its adapters have diverged, or the backbone is unfit") from None
        return {
            place: said for run, of_run in zip(batch, answers, strict=True) for place, said in zip(run, of_run, strict=True)
        }
