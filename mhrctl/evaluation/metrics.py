"""Scores of predictions: docs/recipe.md, section 2.5."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F-measure with the stemmer, the best over the references, in percent."""
    return max(100 * float(_scorer().score(reference, prediction)["rougeL"].fmeasure) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """100 if the prediction is one of the references, ignoring case, punctuation and white space; else 0.

    SQuAD's normalisation without its removal of articles, as Tk-Instruct scores exact match.
    """
    return 100.0 * any(_normalised(prediction) == _normalised(reference) for reference in references)


def _normalised(text: str) -> str:
    return " ".join(_PUNCTUATION.sub("", text.lower()).split())


SCORES = {"rouge_l": rouge_l, "exact_match": exact_match, "accuracy": exact_match}
"""Scores by the name of a task's metric; `accuracy` of generated answers is exact match with the right choice."""
