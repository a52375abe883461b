"""What a tokenizer cannot say of a task's texts is counted: unknown tokens, targets of nothing else, choices that are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mhrctl.suites.task import Example

Ids = Sequence[int]


class Alike(NamedTuple):
    """These are two choices of an example, the right one and a wrong one, that are the same tokens."""

    example: str
    right: str
    wrong: str
    tokens: int


@dataclass
class Unsayable:
    """This counts what a tokenizer cannot say.

    Attributes:
        tokenizer: the tokenizer.
        unknown: {`inputs`, `targets` or `choices`: texts with unknown tokens in them}.
        wordless: {split: examples of whose targets none has a token that means anything}.
        alike: examples whose right choice is the same tokens as a wrong one.
        first_alike: the first of them.
    """

    tokenizer: PreTrainedTokenizerBase
    unknown: Counter[str] = field(default_factory=Counter)
    wordless: Counter[str] = field(default_factory=Counter)
    alike: int = 0
    first_alike: Alike | None = None

    def __post_init__(self) -> None:
        unknown = self.tokenizer.unk_token_id
        # GPT-2's tokenizer calls its begin and end token unknown too, which it never is: it can say every byte.
        meant = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        self._unknown: int | None = unknown if isinstance(unknown, int) and unknown not in meant else None

    def add(
        self, split: str, example: Example, input_ids: Ids, target_ids: Sequence[Ids], choice_ids: Sequence[Ids], gold: Ids
    ) -> None:
        """Look at an example.

        Args:
            split: of it.
            example: its texts.
            input_ids: tokens of its input in the prompt, as they were framed and cut.
            target_ids: likewise, of each target.
            choice_ids: likewise, of each choice.
            gold: for each target, which choice it is.
        """
        self.unknown["inputs"] += self._unknown in input_ids
        self.unknown["targets"] += sum(self._unknown in ids for ids in target_ids)
        self.unknown["choices"] += sum(self._unknown in ids for ids in choice_ids)
        targets = zip(example.targets, target_ids, strict=True)
        self.wordless[split] += all(text.strip() and self._says_nothing(ids) for text, ids in targets)
        right = {tuple(choice_ids[place]): example.choices[place] for place in gold}
        for ids, text in zip(choice_ids, example.choices, strict=True):
            same = right.get(tuple(ids))
            if same is not None and same != text and text not in example.targets:
                self.alike += 1
                self.first_alike = self.first_alike or Alike(example.id, same, text, len(ids))
                break

    @property
    def counts(self) -> dict[str, int]:
        """The counts, as a row of the task table has them."""
        texts = {what: self.unknown[what] for what in ("inputs", "targets", "choices")}
        return texts | {"unsayable": self.wordless.total(), "alike": self.alike}

    def _says_nothing(self, ids: Ids) -> bool:
        """Whether nothing is left of a text without unknown tokens; T5's has a token of white space before them."""
        if len(ids) > 1 and self._unknown not in ids:
            return False
        return not str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
