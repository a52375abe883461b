"""The test splits of all tasks are answered, some tasks to a batch, and the answers scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.examples import Examples
from mhrctl.evaluation.metrics import Answer, References, choices_to_score, recorded_metrics, references_of, score_all
from mhrctl.evaluation.prediction import Generation, answer
from mhrctl.evaluation.router import Router
from mhrctl.evaluation.scores import PHASES, Phase
from mhrctl.models.folding import foldable, folded
from mhrctl.models.speed import Speed
from mhrctl.training.execution import Execution


@dataclass(frozen=True)
class TaskAnswers:
    """These are answers to a task's test split in one phase, with their scores in percent.

    Attributes:
        task: name.
        phase: before or after adaptation.
        ids: of the examples.
        answers: one an example.
        references: what each answer is scored against.
        scores: {metric that is recorded of the task: one an example}.
    """

    task: str
    phase: Phase
    ids: Sequence[str]
    answers: Sequence[Answer]
    references: Sequence[References]
    scores: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class TestSplits:
    """These are the test splits of all tasks, which are answered in each phase.

    Attributes:
        backbone: frozen, on the device.
        tokenizer: of the backbone.
        examples: the test splits of all tasks.
        metrics: {task: its metric}.
        rouge_tokenizers: {task: what its ROUGE cuts texts into tokens by}.
        generation: how answers come about.
        execution: how to run.
    """

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    metrics: Mapping[str, str]
    rouge_tokenizers: Mapping[str, str]
    generation: Generation
    execution: Execution

    def answers(self, phase: Phase, adapter: Adapter | None) -> list[TaskAnswers]:
        """Answer and score all tasks in one phase, some tasks to a batch."""
        results: list[TaskAnswers] = []
        names = self.examples.tasks
        together = self.execution.together(adapter)
        with folded_if_shared(self.backbone, adapter, self.execution.speed) as attached:
            by_task = attached is not None and attached.runs == len(names)
            for first in range(0, len(names), together):
                tasks = list(range(first, min(first + together, len(names))))
                parts = [self.examples.of(tasks=[names[task]]) for task in tasks]
                adapters = attached.select(tasks) if attached and by_task else attached
                answers = answer(
                    self.execution.adapted(self.backbone, adapters),
                    self.tokenizer,
                    [part.scored() for part in parts],
                    [self._choices(part) for part in parts],
                    generation=self.generation,
                    device=self.execution.accelerator.device,
                    track=self.execution.track,
                    names=[names[task] for task in tasks],
                )
                results += [self._scored(phase, part, said) for part, said in zip(parts, answers, strict=True)]
        return results

    def routed(self, router: Router) -> list[TaskAnswers]:
        """Answer all queries as a router has it, and score them in both phases: it answers as well before as after."""
        answers: dict[str, list[Answer]] = {}
        parts = {name: self.examples.of(tasks=[name]) for name in self.examples.tasks}
        for name, part in parts.items():
            answers[name] = router.answers(
                [name] * len(part),
                part.column("prompt"),
                part.scored(),
                self._choices(part) or [()] * len(part),
                backbone=self.backbone,
                tokenizer=self.tokenizer,
                generation=self.generation,
                execution=self.execution,
            )
        return [self._scored(phase, part, answers[name]) for phase in PHASES for name, part in parts.items()]

    def _scored(self, phase: Phase, examples: Examples, answers: Sequence[Answer]) -> TaskAnswers:
        """Score a task's answers: zero-shot against all targets, adapted against the one that was drawn."""
        task = examples.column("task")[0]
        texts: list[list[str]] = examples.column("targets")
        if phase == "adapted":
            drawn = examples.column("reference")
            texts = [[targets[reference]] for targets, reference in zip(texts, drawn, strict=True)]
        references = references_of(texts, examples.column("choices"), self.rouge_tokenizers[task])
        scores = {name: score_all(name, answers, references) for name in recorded_metrics([self.metrics[task]])}
        return TaskAnswers(task, phase, examples.column("id"), answers, references, scores)

    def _choices(self, part: Examples) -> Sequence[Sequence[str]]:
        """The answer choices of a task's examples, if its answers are chosen."""
        return choices_to_score(self.metrics[part.column("task")[0]], part.column("choices"))


@contextmanager
def folded_if_shared(backbone: PreTrainedModel, adapter: Adapter | None, speed: Speed) -> Iterator[Adapter | None]:
    """Fold an adapter that serves all tasks into the weights, if they are fp32, and give what is left to attach."""
    if adapter is not None and speed.folding and foldable(backbone, adapter):
        with folded(backbone, adapter):
            yield None
    else:
        yield adapter
