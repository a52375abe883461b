"""A task has one ROUGE tokenizer in all its scores, or one by reference; it is chosen here. `docs/metrics.md` says which."""

from __future__ import annotations

from collections.abc import Iterable

from mhrctl.errors import known
from mhrctl.evaluation.text_scores import BY_REFERENCE, ENGLISH, GPT2, TOKENIZERS, english_reads, letters

AUTO = "auto"
UPSTREAM_SOURCES = ("superni", "t0")
"""Sources of English benchmarks, whose published scores are of `english`."""
SOME = 0.1
"""Share of references with other letters than a to z, beyond which they are not those of a few names or signs."""
MOST = 0.5


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
        unreadable += not english_reads(reference)
        in_part += letters(reference)[1] > 0
    if source in UPSTREAM_SOURCES:
        return GPT2 if unreadable > MOST * total else ENGLISH
    if max(unreadable, in_part) > SOME * total:
        return GPT2
    return BY_REFERENCE if unreadable else ENGLISH
