"""A framing is how prompts and answers become tokens: an encoder-decoder reads whole texts, a causal model goes on with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from mhrctl.config.tasks import FramingName
from mhrctl.data.chat import Chat, end_turns
from mhrctl.data.tokenization import Ending, Tokenizes, around, bare_tokens, end_token, load_tokenizer

GAP = " "
"""Stands between a prompt and its answer, whose first token it is a part of, as it is within a text."""
CUES = (":", "\uff1a")
"""A prompt that ends so asks for its answer; the second is the colon of Chinese and Japanese."""
_BEFORE = "a"
"""A text that an answer follows: many tokenizers put a space before a text, and would put a second one before a bare answer."""


class TextTokens(Protocol):
    """This makes tokens of texts of one kind: of prompts, or of answers."""

    def encode(self, tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts."""

    def cut(self, ids: list[int], longest: int) -> list[int]:
        """Return what is kept of a text's tokens where they are more than `longest`."""


@dataclass(frozen=True)
class Framed:
    """This makes tokens of prompts and answers by one tokenizer.

    Attributes:
        inputs: of prompts.
        answers: of targets and choices.
        chat: asks in turns, where a prompt is more than its text.
    """

    inputs: TextTokens
    answers: TextTokens
    chat: Chat | None = None


@dataclass(frozen=True)
class Framing:
    """A framing is a row of `FRAMINGS`, or that of a chat.

    Attributes:
        of: looks at what a tokenizer puts around texts.
        prompt: gives a prompt the ending that the framing needs, which is the second argument if it has none.
        between: stands between the parts of a prompt, where its source has no wording.
        ends_prompts: whether a tokenizer that is trained for it puts its end token after every text.
        pads_with_end: whether the end token may be the padding of a tokenizer that has none.
    """

    of: Callable[[PreTrainedTokenizerBase], Framed]
    prompt: Callable[[str, str], str]
    ends_prompts: bool
    pads_with_end: bool
    between: str = ": "


@dataclass(frozen=True)
class Beginning:
    """A beginning is how a text that is gone on with becomes tokens: it has no end, and a cut keeps what comes last.

    Attributes:
        begin: special tokens that the tokenizer puts before a text; a cut keeps them.
    """

    begin: tuple[int, ...]

    def encode(self, tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts without the end token, whether or not the tokenizer puts one."""
        return [[*self.begin, *ids] for ids in bare_tokens(tokenizer, texts)]

    def cut(self, ids: list[int], longest: int) -> list[int]:
        """Return the begin tokens and the last tokens of a text, `longest` in all."""
        if len(ids) <= longest:
            return ids
        begin = ids[: min(len(self.begin), longest)]
        return [*begin, *ids[len(ids) - longest + len(begin) :]]


@dataclass(frozen=True)
class Following:
    """This is how an answer that follows a prompt becomes tokens: as it does within the whole text, and with the end token.

    Attributes:
        end: the token that ends an answer.
        before: tokens of a text that an answer follows.
    """

    end: int
    before: tuple[int, ...]

    def encode(self, tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of answers, with the space before each and the end token."""
        answers = [text if not text or text.startswith(GAP) else f"{GAP}{text}" for text in texts]
        wholes: list[list[int]] = bare_tokens(tokenizer, [f"{_BEFORE}{answer}" for answer in answers])
        size = len(self.before)
        for row, (ids, answer) in enumerate(zip(wholes, answers, strict=True)):
            if tuple(ids[:size]) == self.before:
                wholes[row] = ids[size:]
            else:  # of a tokenizer whose tokens go across spaces: the whole text has no place at which the answer begins
                wholes[row] = bare_tokens(tokenizer, [answer])[0]
        return [[*ids, self.end] for ids in wholes]

    def cut(self, ids: list[int], longest: int) -> list[int]:
        """Return the first tokens of an answer that are `longest` with its end."""
        return Ending(self.end, 1, is_added=True).cut(ids, longest)


def _encoder_decoder(tokenizer: PreTrainedTokenizerBase) -> Framed:
    ending = Ending.of(tokenizer)
    return Framed(ending, ending)


def _causal(tokenizer: PreTrainedTokenizerBase) -> Framed:
    begin, _ = around(tokenizer)
    return Framed(Beginning(tuple(begin)), Following(end_token(tokenizer), tuple(bare_tokens(tokenizer, [_BEFORE])[0])))


def _chat(tokenizer: PreTrainedTokenizerBase) -> Framed:
    chat = Chat.of(tokenizer)
    return Framed(Beginning(()), chat, chat)


def _cued(prompt: str, cue: str) -> str:
    """The prompt without white space at its end, which is a colon or else the cue."""
    prompt = prompt.rstrip()
    return prompt if prompt.endswith(CUES) else f"{prompt}{cue}".rstrip()


FRAMINGS: Mapping[FramingName, Framing] = {
    "encoder_decoder": Framing(_encoder_decoder, lambda prompt, _: prompt, ends_prompts=True, pads_with_end=False),
    "causal": Framing(_causal, _cued, ends_prompts=False, pads_with_end=True),
}
"""{`prepare.framing`: how texts become tokens for it}."""
_IN_TURNS = Framing(_chat, lambda prompt, _: prompt, ends_prompts=False, pads_with_end=True, between="\n\n")


def framing_by(name: FramingName, *, chat: bool = False) -> Framing:
    """Return the framing that params.yaml asks for.

    Args:
        name: `prepare.framing`.
        chat: `prepare.chat`.
    """
    return _IN_TURNS if chat else FRAMINGS[name]


def framed_tokenizer(
    name: str, *, revision: str = "main", gguf: str | None = None, framing: FramingName = "encoder_decoder", chat: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer as a framing needs it: of a chat, its end token is what ends a turn.

    Args:
        name: hub id or folder.
        revision: on the hub.
        gguf: a file there that the tokenizer is in.
        framing: `prepare.framing`.
        chat: `prepare.chat`.

    Raises:
        DataError: if it cannot be loaded, has no padding or end token, or no chat template that a chat needs.
    """
    pads_with_end = framing_by(framing, chat=chat).pads_with_end
    tokenizer = load_tokenizer(name, revision=revision, gguf=gguf, pads_with_end=pads_with_end)
    if chat:
        end_turns(tokenizer)
    return tokenizer
