"""Rows of the examples files hold prompts, references and choices of examples, with their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from mhrctl.config.tasks import FramingName
from mhrctl.data.chat import USER, Chat, Turn
from mhrctl.data.framing import TextTokens, framing_by
from mhrctl.data.pieces import Pieces
from mhrctl.data.vocabulary import Unsayable
from mhrctl.errors import DataError
from mhrctl.suites.task import Example, Split

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("targets", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("reference", pa.int32()),  # the target that validation and test score against
        ("input_ids", pa.list_(pa.int32())),
        ("target_ids", pa.list_(pa.list_(pa.int32()))),
        ("choice_ids", pa.list_(pa.list_(pa.int32()))),
        ("gold", pa.list_(pa.int32())),  # for each target, which choice it is
        ("input_tokens", pa.int32()),
        ("target_tokens", pa.int32()),  # of the longest target
    ]
)
TEST_SCHEMA = SCHEMA.append(pa.field("seeds", pa.list_(pa.int32()))).append(pa.field("group", pa.string()))
"""Test tasks also have few-shot sets of seeds, and several renderings of a record."""

Draft = tuple[Split, Example, int]
"""An example, its split, and which of its references scores count."""


@dataclass
class Encoder:
    """An encoder turns a task's examples into rows.

    Attributes:
        task: the task's name.
        prompt: puts a prompt around an input.
        tokenizer: of the backbone.
        max_input_tokens: longer inputs are cut, as the framing says.
        max_target_tokens: likewise, of targets and choices, whose end token is kept.
        framing: how texts become tokens.
        chat: whether prompts are turns of the tokenizer's chat template; `prompt` then gives what the user says.
        cut: how many inputs, targets and choices were cut so far.
        unsayable: what the tokenizer could not say of them.
        notes: {what: count} of what a stream left out on its way here.
        pieces: the tokens of pieces of texts that are known from other tasks, by this tokenizer; None knows none.
    """

    task: str
    prompt: Callable[[str], str]
    tokenizer: PreTrainedTokenizerBase
    max_input_tokens: int
    max_target_tokens: int
    framing: FramingName = "encoder_decoder"
    chat: bool = False
    cut: Counter[str] = field(default_factory=Counter)
    unsayable: Unsayable = field(init=False)
    notes: Counter[str] = field(default_factory=Counter)
    pieces: Pieces | None = None

    def __post_init__(self) -> None:
        self._tokens = self.pieces or Pieces(self.tokenizer)
        self.unsayable = Unsayable(self.tokenizer)
        self._framed = framing_by(self.framing, chat=self.chat).of(self.tokenizer)

    def table(self, drafts: Sequence[Draft], schema: pa.Schema) -> pa.Table:
        """Return the rows of some examples.

        Raises:
            DataError: if a prompt has no token, or cannot be cut to what is allowed.
        """
        examples = [example for _, example, _ in drafts]
        if self._framed.chat is None:
            prompts = [self.prompt(example.input) for example in examples]
            inputs = self._encode(self._framed.inputs, prompts, self.max_input_tokens, "input")
        else:
            prompts, inputs = self._in_turns(self._framed.chat, examples)
        targets = self._nested([example.targets for _, example, _ in drafts], "target")
        choices = self._nested([example.choices for _, example, _ in drafts], "choice")
        gold = [_gold(example) for _, example, _ in drafts]
        for row, (split, example, _) in enumerate(drafts):
            if not inputs[row]:
                raise DataError(
                    f"task {self.task}, example {example.id}: its prompt has no token, so that nothing precedes the answer;"
                    " set prepare.answer_cue"
                )
            self.unsayable.add(split, example, inputs[row], targets[row], choices[row], gold[row])
        columns: dict[str, list[Any]] = {
            "task": [self.task] * len(drafts),
            "split": [split for split, _, _ in drafts],
            "id": [example.id for _, example, _ in drafts],
            "prompt": prompts,
            "targets": [list(example.targets) for _, example, _ in drafts],
            "choices": [list(example.choices) for _, example, _ in drafts],
            "reference": [reference for _, _, reference in drafts],
            "input_ids": inputs,
            "target_ids": targets,
            "choice_ids": choices,
            "gold": gold,
            "input_tokens": [len(ids) for ids in inputs],
            "target_tokens": [max(map(len, ids)) for ids in targets],
            "seeds": [list(example.seeds) for _, example, _ in drafts],
            "group": [example.group for _, example, _ in drafts],
        }
        return pa.table({name: columns[name] for name in schema.names}, schema)

    def _in_turns(self, chat: Chat, examples: Sequence[Example]) -> tuple[list[str], list[list[int]]]:
        """Conversations of which the last turn asks, and their token ids; what is said is cut, and not what is around it."""
        prompts = []
        for example in examples:
            before, text = _turns(example)
            with self._naming(example):
                prompts.append(chat.prompt([*before, (USER, self.prompt(text))]))
        rows = self._framed.inputs.encode(self._tokens, prompts)
        for row, example in enumerate(examples):
            if len(rows[row]) > self.max_input_tokens:
                self.cut["input"] += 1
                before, text = _turns(example)
                with self._naming(example):
                    rows[row] = chat.shortened(before, self.prompt, text, self.max_input_tokens)
        return prompts, rows

    @contextmanager
    def _naming(self, example: Example) -> Iterator[None]:
        """Name an example in what is wrong with it."""
        try:
            yield
        except DataError as error:
            raise DataError(f"task {self.task}, example {example.id}: {error}") from error

    def _nested(self, texts: Sequence[Sequence[str]], what: str) -> list[list[list[int]]]:
        """Encode lists of texts, all in one call."""
        flat = [text for row in texts for text in row]
        encoded = iter(self._encode(self._framed.answers, flat, self.max_target_tokens, what))
        return [[next(encoded) for _ in row] for row in texts]

    def _encode(self, framed: TextTokens, texts: list[str], longest: int, what: str) -> list[list[int]]:
        """Token ids, cut to `longest`."""
        if not texts:
            return []
        rows = framed.encode(self._tokens, texts)
        self.cut[what] += sum(len(ids) > longest for ids in rows)
        return [framed.cut(ids, longest) for ids in rows]


def _turns(example: Example) -> tuple[Sequence[Turn], str]:
    """The turns before the one that asks, and what it says."""
    if example.turns and example.turns[-1][0] == USER:
        return example.turns[:-1], example.turns[-1][1]
    return (), example.input


def _gold(example: Example) -> list[int]:
    return [example.choices.index(target) for target in example.targets] if example.choices else []
