"""A chat template is a tokenizer's words around the turns of a conversation, by which instruct models are asked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mhrctl.data.loading import reason
from mhrctl.data.tokenization import Ending, Tokenizes, bare_tokens, end_token
from mhrctl.errors import DataError

Turn = tuple[str, str]
"""Who speaks (`system`, `user`, `assistant`), and what they say."""
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
_QUESTION, _ANSWER = "Which town?", "Ouagadougou"
"""A conversation that shows what a template puts where; its words are those of no template."""
_NO_THINKING: Mapping[str, Any] = {"enable_thinking": False, "thinking": False}
"""Variables by which templates leave out what a model thinks before it answers."""
_DATE = {"%d": "26", "%-d": "26", "%B": "July", "%b": "Jul", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_TODAY = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f" | replace('{code}', '{said}')" for code, said in _DATE.items())
    + " }}{% endmacro %}"
)
"""A template that tells the day tells this one, so that prompts are the same on every day."""


@dataclass(frozen=True)
class Chat:
    """A chat is how a tokenizer's chat template asks for an answer, and ends it.

    Attributes:
        tokenizer: has the template.
        opening: a conversation up to where an answer is asked for.
        gap: what stands between that and the answer: nothing, a space, or the end of thoughts that cannot be left out.
        ending: what follows an answer, up to the token that ends a turn.
        end: that token.
    """

    tokenizer: PreTrainedTokenizerBase
    opening: str
    gap: str
    ending: str
    end: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Chat:
        """Look at what a tokenizer's chat template puts around a question and its answer.

        Raises:
            DataError: if it has no template, or one that cannot be used.
        """
        where = f"tokenizer {tokenizer.name_or_path!r}"
        if not tokenizer.chat_template:
            raise DataError(
                f"{where}: has no chat template; name the tokenizer of a model that was trained on chats, or leave `chat` out"
            )
        asked = _rendered(tokenizer, [(USER, _QUESTION)])
        whole = _rendered(tokenizer, [(USER, _QUESTION), (ASSISTANT, _ANSWER)], asks=False)
        place = whole.rfind(_ANSWER)
        if _QUESTION not in asked or place < 0:
            raise DataError(f"{where}: its chat template leaves out what the user or the assistant says")
        gap = whole[len(asked) : place] if whole.startswith(asked) else ""
        ending, end = _turn_end(tokenizer, whole[place + len(_ANSWER) :])
        return cls(tokenizer, asked, gap, ending, end)

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return a conversation as the model reads it, up to where its answer begins.

        A template that knows no system gets what it says as the beginning of the user's turn.

        Raises:
            DataError: if the template refuses the turns.
        """
        try:
            return _rendered(self.tokenizer, turns)
        except DataError:
            if turns[0][0] != SYSTEM or len(turns) == 1 or turns[1][0] != USER:
                raise
            (_, says), (_, asks), *others = turns
            return _rendered(self.tokenizer, [(USER, f"{says}\n\n{asks}"), *others])

    def said(self, prompt: str) -> str | None:
        """Return what the user says in a prompt that is one turn of theirs; None of any other prompt."""
        before, _, after = self.opening.rpartition(_QUESTION)
        is_turn = len(prompt) >= len(before + after) and prompt.startswith(before) and prompt.endswith(after)
        return prompt[len(before) : len(prompt) - len(after)] if is_turn else None

    def encode(self, tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of answers: as they follow in the whole conversation, and with what ends a turn."""
        answers = [f"{self.gap}{text.strip()}{self.ending}" for text in texts]
        before, *wholes = bare_tokens(tokenizer, [self.opening, *(f"{self.opening}{answer}" for answer in answers)])
        rows = [ids[len(before) :] for ids in wholes]
        for row, ids in enumerate(wholes):
            if ids[: len(before)] != before:  # a token goes across the place where the answer begins
                rows[row] = bare_tokens(tokenizer, [answers[row]])[0]
        return [ids if ids[-1:] == [self.end] else [*ids, self.end] for ids in rows]

    def cut(self, ids: list[int], longest: int) -> list[int]:
        """Return the first tokens of an answer that are `longest` with its end."""
        return Ending(self.end, 1, is_added=True).cut(ids, longest)

    def shortened(self, before: Sequence[Turn], put: Callable[[str], str], text: str, longest: int) -> list[int]:
        """Return the tokens of a conversation that is too long, cut to `longest`: nothing that the template puts is cut.

        The oldest turns go first, but for the system's; then the end of the input, then that of the words around it.

        Args:
            before: turns before the one that asks.
            put: puts a task's words around an input.
            text: the input.
            longest: the most tokens.

        Raises:
            DataError: if there are more without anything that is asked.
        """
        before = self._without_oldest(before, put(text), longest)

        def of(content: str) -> list[int]:
            return self._tokens([*before, (USER, content)])

        for make, whole in ((put, text), (str, put("").rstrip())):
            # The largest of the sizes that fit, by halving: the ids of a text and of a part of it have no place in common.
            fitting = bisect_right(range(len(whole) + 1), longest, key=lambda size: len(of(make(whole[:size]))))
            if fitting:
                return of(make(whole[: fitting - 1]))
        raise DataError(f"the chat template alone has {len(of(''))} tokens; raise prepare.max_input_tokens {longest}")

    def _without_oldest(self, before: Sequence[Turn], asked: str, longest: int) -> Sequence[Turn]:
        """Turns before the last without the oldest, as many as must go; what is left begins with the user, after the system."""
        system = [turn for turn in before[:1] if turn[0] == SYSTEM]
        others = [*before[len(system) :], (USER, asked)]
        while len(others) > 1 and len(self._tokens([*system, *others])) > longest:
            others = others[next(place for place, (role, _) in enumerate(others) if role == USER and place) :]
        return [*system, *others[:-1]]

    def _tokens(self, turns: Sequence[Turn]) -> list[int]:
        return bare_tokens(self.tokenizer, [self.prompt(turns)])[0]


def end_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the token that ends a turn a tokenizer's end token, which ends answers and is left out of their texts.

    Raises:
        DataError: if it has no chat template that can be used.
    """
    end = Chat.of(tokenizer).end
    if end != tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"eos_token": str(tokenizer.convert_ids_to_tokens(end))})


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, asks: bool = True) -> str:
    """A conversation in a tokenizer's chat template, up to where an answer begins if it asks for one.

    Raises:
        DataError: if the template refuses it.
    """
    messages = [{"role": role, "content": content.rstrip()} for role, content in turns]
    try:
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = f"{_TODAY}{template}"
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=asks, **_NO_THINKING
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path!r}: its chat template cannot be used for turns of"
            f" {', '.join(role for role, _ in turns)}: {reason(error)}"
        ) from error
    return str(text)


def _turn_end(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, int]:
    """What ends an answer, and its last token: the first special one that a template puts after answers, or else the end."""
    named = {name: number for name, number in tokenizer.get_added_vocab().items() if name.strip() and name in after}
    named |= {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens if name in after}
    if not named:
        end = end_token(tokenizer)
        return str(tokenizer.convert_ids_to_tokens(end)), end
    first = min(named, key=lambda name: (after.index(name), -len(name)))
    return after[: after.index(first) + len(first)], int(named[first])
