"""ROUGE-L is computed on the tokens of two tokenizers, and a task has one of them, or one by reference, in all its scores.

Both are of Super-NaturalInstructions' own evaluation: of its English tasks, and of its cross-lingual ones. `docs/metrics.md`
says which tasks have which.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from unicodedata import category, normalize

from mhrctl.errors import known

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from tokenizers import Tokenizer

AUTO, ENGLISH, GPT2, BY_REFERENCE = "auto", "english", "gpt2", "by_reference"
MERGES = "gpt2_merges.txt.gz"
END_OF_TEXT = "<|endoftext|>"
UPSTREAM_SOURCES = ("superni", "t0")
"""Sources of English benchmarks, whose published scores are of `english`."""
SOME = 0.1
"""Share of references with other letters than a to z, beyond which they are not those of a few names or signs."""
MOST = 0.5


@dataclass(frozen=True)
class RougeTokenizer:
    """A ROUGE tokenizer is a row of the table of these.

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
        return _score(prediction, reference, ENGLISH if _english_reads(reference) else GPT2)
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

    lines = gzip.decompress((files("mhrctl.evaluation") / MERGES).read_bytes()).decode().split("\n")
    merges = [(first, second) for first, second in (line.split(" ") for line in lines[1:] if line)]
    pieces = [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return tokenizer


def known_tokenizer(name: str) -> str:
    """Return the name, which must be in the table.

    Raises:
        ValueError: naming the known tokenizers, if it is not.
    """
    return known("ROUGE tokenizer", name, TOKENIZERS)


def tokenizer_for(setting: str, source: str, references: Iterable[str]) -> str:
    """Return the tokenizer that a task has in all its scores.

    Args:
        setting: `prepare.rouge_tokenizer`, a name of the table or `auto`.
        source: where the task comes from.
        references: of all its examples. Many that `english` reads in part or not at all take `gpt2`, and a few that it cannot
            read `by_reference`; of the English benchmarks only tasks of which it cannot read most have another than it.
    """
    if setting != AUTO:
        return setting
    total = unreadable = in_part = 0
    for reference in references:
        total += 1
        unreadable += not _english_reads(reference)
        in_part += _letters(reference)[1] > 0
    if source in UPSTREAM_SOURCES:
        return GPT2 if unreadable > MOST * total else ENGLISH
    if max(unreadable, in_part) > SOME * total:
        return GPT2
    return BY_REFERENCE if unreadable else ENGLISH


def _english_reads(reference: str) -> bool:
    """Whether most letters and digits of a text are of ASCII; not, where it has none at all."""
    plain, others = _letters(reference)
    return plain > others


def _letters(text: str) -> tuple[int, int]:
    """How many letters, marks and digits of a text are of ASCII, and how many are not."""
    plain = sum(char.isalnum() for char in text if char.isascii())
    return plain, 0 if text.isascii() else sum(category(char)[0] in "LMN" for char in composed(text) if not char.isascii())
