"""Metrics score answers, and are a table with a row a metric. `docs/metrics.md` describes it.

How texts are scored against texts stands in `mhrctl.evaluation.text_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mhrctl.errors import known
from mhrctl.evaluation.text_scores import ENGLISH, exact_match, rouge_l, token_f1

MIXED = "mixed"
"""Stands for the metric of a suite whose test tasks have several."""


@dataclass(frozen=True)
class Answer:
    """An answer is what a model says to one example.

    Attributes:
        text: the generated text, or the text of the chosen choice.
        place: of the chosen choice among the example's choices; None where the answer was generated.
        scores: of the example's choices, of which the largest is best; none where the answer was generated.
    """

    text: str
    place: int | None = None
    scores: Sequence[float] = field(default=(), compare=False)


@dataclass(frozen=True)
class References:
    """References are what is right for one example.

    Attributes:
        texts: any of which is right.
        places: of the example's choices that are right; none where it has no choices.
        rouge_tokenizer: what ROUGE cuts the texts of the task into tokens by.
    """

    texts: Sequence[str]
    places: Collection[int] = ()
    rouge_tokenizer: str = ENGLISH

    @classmethod
    def among(cls, choices: Sequence[str], texts: Sequence[str], rouge_tokenizer: str = ENGLISH) -> References:
        """Return the texts with their places among the choices, which may be none.

        Choices that are equal to the letter are one choice at several places: nobody could tell them apart, so each is right.
        """
        return cls(texts, frozenset(place for place, choice in enumerate(choices) if choice in texts), rouge_tokenizer)


@dataclass(frozen=True)
class Metric:
    """A metric is a row of the metrics table.

    Attributes:
        title: as people read it in tables, on axes and in the terminal.
        score: of an answer against the references of its example, in percent.
        compares: what it compares, in a line.
        over_choices: whether an answer is the best-scored of the example's choices instead of a generated text.
        always: whether it is recorded for every task, whatever the task's metric is.
    """

    title: str
    score: Callable[[Answer, References], float]
    compares: str
    over_choices: bool = False
    always: bool = False


def is_right_choice(answer: Answer, references: References) -> float:
    """Return 100 if the chosen choice stands at a right place among the choices, whatever its text; else 0.

    Raises:
        ValueError: if the answer was not chosen among choices.
    """
    if answer.place is None:
        raise ValueError(f"the answer {answer.text!r} was generated, and has no place among choices")
    return 100.0 * (answer.place in references.places)


def _of_text(score: Callable[[str, Sequence[str]], float]) -> Callable[[Answer, References], float]:
    return lambda answer, references: score(answer.text, references.texts)


METRICS: dict[str, Metric] = {
    "rouge_l": Metric(
        "ROUGE-L",
        lambda answer, references: rouge_l(answer.text, references.texts, references.rouge_tokenizer),
        "the longest common subsequence of tokens, F-measure",
        always=True,
    ),
    "exact_match": Metric(
        "exact match", _of_text(exact_match), "the whole text, without case, punctuation and white space", always=True
    ),
    "accuracy": Metric("accuracy", is_right_choice, "the place of the chosen choice among the choices", over_choices=True),
    "f1": Metric("F1", _of_text(token_f1), "the words, without case, punctuation and articles, as SQuAD v1.1 does"),
}
"""All metrics by name: the name stands in a task's `metric`, in the scores on disk and in the heads of their columns."""

OVER_CHOICES = {name: metric.over_choices for name, metric in METRICS.items()}
"""{metric: whether it is over answer choices}: what a reader of the user's tasks needs to know of the table."""


def title_of(name: str | None) -> str:
    """Return a metric as people read it; `score` of several metrics, or where there are no results yet."""
    return METRICS[name].title if name in METRICS else "score"


def is_over_choices(name: str | None) -> bool:
    """Return whether answers are chosen and not generated; of several metrics, whether all are (none says so)."""
    return name in METRICS and METRICS[name].over_choices


def known_metric(name: str) -> str:
    """Return the name, which must be in the table.

    Raises:
        ValueError: naming the known metrics, if it is not.
    """
    return known("metric", name, METRICS)


def recorded_metrics(names: Iterable[str]) -> list[str]:
    """Return what is recorded of tasks with these metrics, in the order of the table."""
    wanted = set(names)
    return [name for name, metric in METRICS.items() if metric.always or name in wanted]


def choices_to_score(name: str, choices: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return the answer choices of a task's examples where its answers are chosen; nothing where they are generated.

    Args:
        name: the task's metric.
        choices: of each example, which may be none.
    """
    return choices if METRICS[name].over_choices and all(choices) else []


def references_of(
    texts: Sequence[Sequence[str]], choices: Sequence[Sequence[str]], rouge_tokenizer: str = ENGLISH
) -> list[References]:
    """Return the references of a task's examples, each with its places among the example's choices, which may be none.

    Args:
        texts: of each example, which are right.
        choices: of each example.
        rouge_tokenizer: of the task.
    """
    return [References.among(*example, rouge_tokenizer) for example in zip(choices, texts, strict=True)]


def score_all(name: str, answers: Sequence[Answer], references: Sequence[References]) -> list[float]:
    """Score each answer by a metric, in percent."""
    return [METRICS[name].score(answer, right) for answer, right in zip(answers, references, strict=True)]
