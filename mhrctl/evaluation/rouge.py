"""ROUGE-L is computed on the tokens of one of two tokenizers, and a task has one of them in all its scores.

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

from mhrctl.errors import unknown

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from tokenizers import Tokenizer

AUTO, ENGLISH, GPT2 = "auto", "english", "gpt2"
MERGES = "gpt2_merges.txt.gz"
END_OF_TEXT = "<|endoftext|>"
UPSTREAM_SOURCES = ("superni", "t0")
"""Sources of English benchmarks, whose published scores are of `english`."""
SOME = 0.1
"""Share of references with other letters than a to z, beyond which they are not those of a few names."""
MOST = 0.5


@dataclass(frozen=True)
class RougeTokenizer:
    """A ROUGE tokenizer is a row of the table of these.

    Attributes:
        title: what it cuts texts into, as people read it.
        scorer: makes what scores with it.
        compose: whether accents are composed first, so that one text written in two ways is one text.
    """

    title: str
    scorer: Callable[[], RougeScorer]
    compose: bool


def _english_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # it imports nltk and scipy

    return RougeScorer(["rougeL"], use_stemmer=True)


def _gpt2_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Pieces())


TOKENIZERS: dict[str, RougeTokenizer] = {
    ENGLISH: RougeTokenizer("stemmed words of a to z and digits", _english_scorer, compose=False),
    GPT2: RougeTokenizer("the tokens of GPT-2", _gpt2_scorer, compose=True),
}
"""All tokenizers by name: the name stands in a task's `rouge_tokenizer`, in its scores and on cards."""


def rouge_l(prediction: str, references: Sequence[str], tokenizer: str = ENGLISH) -> float:
    """Compute the ROUGE-L F-measure, the best over the references, in percent.

    Args:
        prediction: the answer.
        references: any of which is right.
        tokenizer: a name of the table.
    """
    if TOKENIZERS[tokenizer].compose:
        prediction, references = composed(prediction), [composed(reference) for reference in references]
    scorer = _scorer(tokenizer)
    return max(100 * float(scorer.score(reference, prediction)["rougeL"].fmeasure) for reference in references)


@cache
def _scorer(tokenizer: str) -> RougeScorer:
    return TOKENIZERS[tokenizer].scorer()


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
    if name not in TOKENIZERS:
        raise ValueError(unknown("ROUGE tokenizer", name, TOKENIZERS))
    return name


def tokenizer_for(setting: str, source: str, references: Iterable[str]) -> str:
    """Return the tokenizer that a task has in all its scores.

    Args:
        setting: `prepare.rouge_tokenizer`, a name of the table or `auto`.
        source: where the task comes from.
        references: of all its examples. One that `english` cannot read, and many that it reads in part, take `gpt2`; of the
            English benchmarks only tasks of which it cannot read most.
    """
    if setting != AUTO:
        return setting
    total = unreadable = with_others = 0
    for reference in references:
        total += 1
        plain, others = _letters(reference)
        unreadable += plain <= others  # which is so of a text without any letter or digit
        with_others += others > 0
    if source in UPSTREAM_SOURCES:
        return GPT2 if unreadable > MOST * total else ENGLISH
    return GPT2 if unreadable or with_others > SOME * total else ENGLISH


def _letters(text: str) -> tuple[int, int]:
    """How many letters, marks and digits of a text are of ASCII, and how many are not."""
    plain = sum(char.isalnum() for char in text if char.isascii())
    return plain, 0 if text.isascii() else sum(category(char)[0] in "LMN" for char in composed(text) if not char.isascii())
