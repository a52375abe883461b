"""Texts of test rows take no part in training: splits keep places apart, and this keeps texts apart.

Two rows are equal if the input and one target of both are, whatever stands around the input: a training task of another name or
definition may ask the same. White space and the forms in which Unicode may write a letter make no difference, since
tokenizers see none.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from mhrctl.suites.task import Example

SIZE = 16
"""Bytes of a hash, so that what is held of millions of test rows stays small."""


@dataclass(frozen=True)
class TestTexts:
    """These are the texts of all rows that are scored.

    Attributes:
        hashes: of each input with each of its targets.
    """

    __test__ = False  # it is no class of tests

    hashes: Collection[bytes] = field(default_factory=frozenset)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> TestTexts:
        """Hash the texts of examples."""
        return cls(frozenset(key for example in examples for key in _keys(example)))

    def __contains__(self, example: object) -> bool:
        return isinstance(example, Example) and any(key in self.hashes for key in _keys(example))

    @property
    def key(self) -> str:
        """A hash of all: what is filtered by these texts depends on it."""
        return blake2b(b"".join(sorted(self.hashes)), digest_size=SIZE).hexdigest()

    def without(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples that are equal to no test row, in their order."""
        return [example for example in examples if example not in self]

    def filtered(self, stream: Iterable[Example], notes: Counter[str] | None = None) -> Iterator[Example]:
        """Go through a stream without what is equal to a test row, which is counted as `leaks` in `notes`."""
        for example in stream:
            if example not in self:
                yield example
            elif notes is not None:
                notes[LEAKS] += 1


LEAKS = "leaks"
"""What a stream's count of rows equal to test rows is called."""


def distinct(examples: Sequence[Example], after: Sequence[Example] = ()) -> list[Example]:
    """Return the examples, in their order, but for those that repeat an earlier one or one of `after`."""
    seen = {_whole(example) for example in after}
    kept = []
    for example in examples:
        key = _whole(example)
        if key not in seen:
            seen.add(key)
            kept.append(example)
    return kept


def _whole(example: Example) -> bytes:
    return b"".join(sorted(set(_keys(example))))


def _keys(example: Example) -> list[bytes]:
    """A hash of the input with each target."""
    text = _plain(example.input)
    return [_hash(f"{len(text)} {text}{_plain(target)}") for target in example.targets]


def _hash(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=SIZE).digest()


def _plain(text: str) -> str:
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())
