"""Texts are scored against texts here, by what is in this file alone: it imports nothing of mhrctl.

So `mhrctl export --to harness` copies it beside the tasks that it writes, where lm-evaluation-harness calls `dataset`,
`of_generated` and `of_chosen`. Scores are in percent, but for those of these two, which are of 0 to 1 as the harness's are.

ROUGE-L is computed on the tokens of two tokenizers, which are of Super-NaturalInstructions' own evaluation: of its English
tasks, and of its cross-lingual ones. ROUGE-L and exact match are those of docs/recipe.md, section 2.5.
"""

from __future__ import annotations

import gzip
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import category, normalize

if TYPE_CHECKING:
    from datasets import Dataset
    from rouge_score.rouge_scorer import RougeScorer
    from tokenizers import Tokenizer

ENGLISH, GPT2, BY_REFERENCE = "english", "gpt2", "by_reference"
MERGES = "gpt2_merges.txt.gz"
END_OF_TEXT = "<|endoftext|>"
DRAWN = "_drawn"
"""Ends the name of a score against the one reference that was drawn for an example."""
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 100 if the prediction is one of the references, ignoring case, punctuation and white space; else 0.

    SQuAD's normalisation without its removal of articles, as Tk-Instruct scores exact match; accents count as they are read,
    however they are encoded. A reference of which that leaves nothing is compared as it stands.
    """
    return 100.0 * any(_normalised(prediction, reference) == _normalised(reference, reference) for reference in references)


def _normalised(text: str, reference: str) -> str:
    return " ".join(_bare(text).split()) if _bare(reference).strip() else composed(text).strip()


def _bare(text: str) -> str:
    """A text without case and punctuation."""
    return composed(_PUNCTUATION.sub("", composed(text).lower()))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Compute SQuAD v1.1's F1 of the words that prediction and reference share, the best over the references, in percent.

    Words are what is left of case, punctuation and English articles. A text of which nothing is left shares nothing: version
    1.1 gives 0 there, unlike version 2, whose questions may have no answer. A reference of which nothing is left is matched by
    an answer that is the same to the letter.
    """
    return max(_f1(prediction, reference) for reference in references)


def _f1(prediction: str, reference: str) -> float:
    said, right = _words(prediction), _words(reference)
    if not right:
        return 100.0 * (composed(prediction).strip() == composed(reference).strip())
    shared = (said & right).total()
    return 200 * shared / (said.total() + right.total()) if shared else 0.0  # the harmonic mean of precision and recall


def _words(text: str) -> Counter[str]:
    return Counter(_ARTICLES.sub(" ", _bare(text)).split())


class RougeTokenizer(NamedTuple):
    """A ROUGE tokenizer is a row of the table of these; no dataclass, which the harness's way of loading a file breaks.

    Attributes:
        title: what it cuts texts into, as people read it.
        scorer: makes what scores with it; None asks another row, by the reference.
        compose: whether accents are composed first, so that one text written in two ways is one text.
    """

    title: str
    scorer: Callable[[], RougeScorer] | None
    compose: bool = False


def _english_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # it imports nltk and scipy

    return RougeScorer(["rougeL"], use_stemmer=True)


def _gpt2_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Pieces())


TOKENIZERS: dict[str, RougeTokenizer] = {
    ENGLISH: RougeTokenizer("stemmed words of a to z and digits", _english_scorer),
    GPT2: RougeTokenizer("the tokens of GPT-2", _gpt2_scorer, compose=True),
    BY_REFERENCE: RougeTokenizer("the tokens of GPT-2 where a reference has hardly a letter of a to z", None),
}
"""All tokenizers by name: the name stands in a task's `rouge_tokenizer`, in its scores and on cards."""


def rouge_l(prediction: str, references: Sequence[str], tokenizer: str = ENGLISH) -> float:
    """Compute the ROUGE-L F-measure, the best over the references, in percent.

    Args:
        prediction: the answer.
        references: any of which is right.
        tokenizer: a name of the table.
    """
    return max(_score(prediction, reference, tokenizer) for reference in references)


def _score(prediction: str, reference: str, tokenizer: str) -> float:
    scorer = _scorer(tokenizer)
    if scorer is None:
        return _score(prediction, reference, ENGLISH if english_reads(reference) else GPT2)
    if TOKENIZERS[tokenizer].compose:
        prediction, reference = composed(prediction), composed(reference)
    return 100 * float(scorer.score(reference, prediction)["rougeL"].fmeasure)


@cache
def _scorer(tokenizer: str) -> RougeScorer | None:
    make = TOKENIZERS[tokenizer].scorer
    return make() if make else None


def composed(text: str) -> str:
    """Return a text with its accents composed (Unicode's NFC): an accent of its own, and a letter that has it, are one text."""
    return normalize("NFC", text)


def gpt2_tokens(text: str) -> list[str]:
    """Return the tokens of GPT-2 as Super-NaturalInstructions' cross-lingual scores take them: without their leading spaces."""
    return [token.lstrip("\u0120") for token in _gpt2().encode(text, add_special_tokens=False).tokens]


class _Pieces:
    """The tokens of GPT-2, as `rouge_score` asks for them."""

    def tokenize(self, text: str) -> list[str]:
        return gpt2_tokens(text)


@cache
def _gpt2() -> Tokenizer:
    """GPT-2's byte-level BPE. Its vocabulary is the bytes, what each merge makes, and the end of a text."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    lines = gzip.decompress(Path(__file__).with_name(MERGES).read_bytes()).decode().split("\n")
    merges = [(first, second) for first, second in (line.split(" ") for line in lines[1:] if line)]
    pieces = [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return tokenizer


def english_reads(reference: str) -> bool:
    """Return whether most letters and digits of a text are of ASCII; not, where it has none at all."""
    plain, others = letters(reference)
    return plain > others


def letters(reference: str) -> tuple[int, int]:
    """Return how many letters, marks and digits of a text are of ASCII, and how many are not."""
    plain = sum(char.isalnum() for char in reference if char.isascii())
    if reference.isascii():
        return plain, 0
    return plain, sum(category(char)[0] in "LMN" for char in composed(reference) if not char.isascii())


def dataset(file: str, **_rest: object) -> dict[str, Dataset]:
    """Read the examples of a task that lie beside this file, as the harness asks for a data set.

    Args:
        file: their name.
    """
    from datasets import Dataset

    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def of_generated(example: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a generated answer as the harness asks for it: each from 0 to 1.

    Args:
        example: a row of the data set.
        results: the answer.
    """
    return _wanted(example, _of_text(example, results[0].strip()))


def of_chosen(example: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Score the best of an example's choices as the harness asks for it: each from 0 to 1.

    `accuracy` is of the choice with the best log-likelihood a token, as mhrctl chooses; `acc` and `acc_norm` are the harness's
    own: of that with the best log-likelihood, and with the best a letter.

    Args:
        example: a row of the data set, with how many tokens each choice has.
        results: the log-likelihood of each choice, and whether it is what a greedy answer would be.
    """
    choices, power = example["choices"], example["length_norm"]
    whole = [likelihood for likelihood, _ in results]
    by_token = [each / length**power for each, length in zip(whole, example["lengths"], strict=True)]
    by_letter = [each / len(choice) for each, choice in zip(whole, choices, strict=True)]
    best = _largest(by_token)
    right = [choice in example["targets"] for choice in choices]
    scores = {"accuracy": right[best], "acc": right[_largest(whole)], "acc_norm": right[_largest(by_letter)]}
    scores[f"accuracy{DRAWN}"] = choices[best] == example["targets"][example["reference"]]
    return _wanted(example, {name: float(score) for name, score in scores.items()} | _of_text(example, choices[best]))


def _wanted(example: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that the task's list of metrics has."""
    return {name: scores[name] for name in example["metrics"]}


def _largest(values: Sequence[float]) -> int:
    """The place of the first of the largest."""
    return max(range(len(values)), key=values.__getitem__)


def _of_text(example: Mapping[str, Any], answer: str) -> dict[str, float]:
    """The scores of a text against all targets, and against the drawn one."""
    scores = {}
    for ending, targets in (("", example["targets"]), (DRAWN, [example["targets"][example["reference"]]])):
        scores[f"rouge_l{ending}"] = rouge_l(answer, targets, example["rouge_tokenizer"])
        scores[f"exact_match{ending}"] = exact_match(answer, targets)
        scores[f"f1{ending}"] = token_f1(answer, targets)
    return {name: score / 100 for name, score in scores.items()}
