"""Chats: prompts and answers as turns of a tokenizer's chat template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mhrctl.data.chat import ASSISTANT, SYSTEM, USER, Chat, Turn, end_turns
from mhrctl.data.tokenization import bare_tokens
from mhrctl.errors import DataError
from tests.data.kinds import CHATS, chatted, gpt_2, loud, mistral

MADE = {name: make() for name, make in CHATS.items()}
ENDS = {
    "marked": "<|im_end|>",
    "loud": "<|im_end|>",
    "thinking": "<|im_end|>",
    "always_thinking": "<|im_end|>",
    "dated": "<|eot|>",
    "instructed": "</s>",
    "without_system": "<end>",
    "unmarked": "</s>",
}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581<>"), max_size=30)


def theirs(tokenizer: PreTrainedTokenizerBase, *turns: Turn, **options: Any) -> list[int]:
    """What transformers makes of a conversation."""
    messages = [{"role": role, "content": content} for role, content in turns]
    ids: Any = tokenizer.apply_chat_template(messages, return_dict=False, enable_thinking=False, **options)
    return list(ids)


def asked(name: str, *turns: Turn) -> list[int]:
    return bare_tokens(MADE[name], [Chat.of(MADE[name]).prompt(turns)])[0]


def put(text: str) -> str:
    return f"Say it back.\n\n{text}"


@pytest.mark.parametrize("name", sorted(set(CHATS) - {"dated"}))
def test_prompts_are_what_transformers_makes_of_them(name: str) -> None:
    turns = [(USER, "name the capital"), (ASSISTANT, "of what?"), (USER, "of France")]
    assert asked(name, *turns) == theirs(MADE[name], *turns, add_generation_prompt=True)
    assert asked(name, turns[0]).count(MADE[name].bos_token_id) <= 1


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("answer", ["answer", "Paris", "the Paris of the South", "one\ntwo"])
def test_an_answer_is_what_follows_in_the_whole_conversation(name: str, answer: str) -> None:
    chat = Chat.of(MADE[name])
    before = bare_tokens(MADE[name], [chat.prompt([(USER, "name it")])])[0]
    (after,) = chat.encode(MADE[name], [f" {answer} "])
    whole = theirs(MADE[name], (USER, "name it"), (ASSISTANT, answer))
    if name == "dated":  # on which day, is not ours to say
        (end,) = bare_tokens(MADE[name], ["<|eot|>"])[0]
        before, whole = (ids[ids.index(end) :] for ids in (before, whole))
    if name == "unmarked":
        whole = whole[: -len(bare_tokens(MADE[name], ["a\n"])[0]) + len(bare_tokens(MADE[name], ["a"])[0])]
        assert before + after == [*whole, chat.end]
    else:
        assert whole[: len(before + after)] == before + after
        assert MADE[name].decode(whole[len(before + after) :]).strip() == ""
    assert MADE[name].convert_ids_to_tokens(after[-1]) == ENDS[name]
    assert chat.end == after[-1] not in after[:-1]


@pytest.mark.parametrize("name", ["marked", "dated", "without_system", "instructed"])
@given(answer=TEXT)
def test_any_answer_is_said_and_ends(name: str, answer: str) -> None:
    (ids,) = Chat.of(MADE[name]).encode(MADE[name], [answer])
    assert ids[-1] == MADE[name].convert_tokens_to_ids(ENDS[name])
    assert MADE[name].decode(ids, skip_special_tokens=True).strip() == answer.strip()


def test_thoughts_are_left_out_where_the_template_can_or_are_ended_by_the_answer() -> None:
    said = {name: Chat.of(MADE[name]) for name in ("thinking", "always_thinking")}
    assert said["thinking"].prompt([(USER, "why?")]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert said["always_thinking"].prompt([(USER, "why?")]).endswith("<|im_start|>assistant\n<think>\n")
    answers = {name: MADE[name].decode(chat.encode(MADE[name], ["so"])[0]) for name, chat in said.items()}
    assert answers == {"thinking": "so<|im_end|>", "always_thinking": "\n</think>\n\nso<|im_end|>"}


def test_a_template_that_tells_the_day_tells_the_same_on_every_day() -> None:
    assert "Today: 26 Jul 2024\n" in Chat.of(MADE["dated"]).prompt([(USER, "why?")])
    other = chatted(gpt_2(), "{{ strftime_now('%d-%B-%Y, %A') }}{{ messages[-1].content }}<|endoftext|>")
    assert Chat.of(other).prompt([(USER, "why?")]) == "26-July-2024, Fridaywhy?<|endoftext|>"


def test_what_the_system_says_is_the_beginning_of_the_users_turn_where_there_is_no_system() -> None:
    turns = [(SYSTEM, "Be short."), (USER, "why?"), (ASSISTANT, "so"), (USER, "so?")]
    assert asked("without_system", *turns) == theirs(
        MADE["without_system"], (USER, "Be short.\n\nwhy?"), *turns[2:], add_generation_prompt=True
    )
    assert asked("marked", *turns) == theirs(MADE["marked"], *turns, add_generation_prompt=True)
    with pytest.raises(DataError, match=r"^tokenizer '.*': its chat template cannot be used for turns of user, user: not in "):
        asked("without_system", (USER, "a"), (USER, "b"))


@pytest.mark.parametrize("name", CHATS)
@settings(max_examples=25)
@given(text=st.text("ab .\n", min_size=1, max_size=40), room=st.integers(0, 20))
def test_a_cut_keeps_the_template_and_the_words_around_the_input(name: str, text: str, room: int) -> None:
    chat = Chat.of(MADE[name])
    longest = len(asked(name, (USER, put("")))) + room
    ids = chat.shortened((), put, text, longest)
    parts = [asked(name, (USER, put(text[:size]))) for size in range(len(text) + 1)]
    size = max(size for size, part in enumerate(parts) if part == ids)
    assert len(ids) <= longest
    assert size == len(text) or len(parts[size + 1]) > longest


def test_then_the_words_around_it_are_cut_and_never_the_template() -> None:
    chat = Chat.of(MADE["marked"])
    nothing, words = (asked("marked", (USER, text)) for text in ("", put("")))
    ids = chat.shortened((), put, "of all", len(words) - 3)
    assert len(nothing) < len(ids) <= len(words) - 3
    said = MADE["marked"].decode(ids).removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n<|im_start|>assistant\n")
    assert said
    assert "Say it back.".startswith(said)
    assert chat.shortened((), put, "of all", len(nothing)) == nothing
    with pytest.raises(
        DataError, match=rf"^the chat template alone has {len(nothing)} tokens; raise prepare.max_input_tokens 5$"
    ):
        chat.shortened((), put, "of all", 5)


def test_the_oldest_turns_are_cut_first_and_the_system_stays() -> None:
    chat = Chat.of(MADE["marked"])
    system, old, new = (SYSTEM, "Be short."), [(USER, "a " * 20), (ASSISTANT, "b")], [(USER, "c " * 9), (ASSISTANT, "d")]

    def cut(longest: int) -> list[int]:
        return chat.shortened([system, *old, *new], put, "e " * 9, longest)

    whole, shorter, last = (
        asked("marked", system, *turns, (USER, put("e " * 9))) for turns in ([*old, *new], new, list[Turn]())
    )
    assert cut(len(whole)) == whole
    assert cut(len(whole) - 1) == cut(len(shorter)) == shorter
    assert cut(len(shorter) - 1) == cut(len(last)) == last
    assert len(cut(len(last) - 4)) == len(last) - 4
    assert cut(len(last) - 4)[:8] == last[:8]


@pytest.mark.parametrize("name", CHATS)
def test_the_end_of_a_turn_becomes_the_end_of_texts(name: str) -> None:
    tokenizer = CHATS[name]()
    before = [asked(name, (USER, "why?")), *Chat.of(tokenizer).encode(tokenizer, ["so"])]
    end_turns(tokenizer)
    assert tokenizer.eos_token == ENDS[name]
    assert len(tokenizer) == len(MADE[name])
    again = Chat.of(tokenizer)
    assert [bare_tokens(tokenizer, [again.prompt([(USER, "why?")])])[0], *again.encode(tokenizer, ["so"])] == before
    assert tokenizer.decode(before[1], skip_special_tokens=True).strip().endswith("so")


def test_an_end_that_a_decoder_would_show_is_made_a_special_token() -> None:
    tokenizer = loud()
    (ids,) = Chat.of(tokenizer).encode(tokenizer, ["so"])
    assert tokenizer.decode(ids, skip_special_tokens=True) == "so<|im_end|>"
    end_turns(tokenizer)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "so"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template; name the tokenizer of a model that was trained on chats, or leave `chat` out"),
        ("{{ 1 + }}", "its chat template cannot be used for turns of user: unexpected "),
        ("{{ raise_exception('never') }}", "its chat template cannot be used for turns of user: never"),
        ("<s>", "its chat template leaves out what the user or the assistant says"),
        (
            "{% if messages | length == 1 %}{{ messages[0].content }}{% endif %}",
            "leaves out what the user or the assistant says",
        ),
    ],
)
def test_what_is_no_template_is_one_line(template: str | None, said: str) -> None:
    tokenizer = mistral()
    tokenizer.chat_template = template
    with pytest.raises(DataError) as error:
        end_turns(tokenizer)
    assert str(error.value).startswith("tokenizer '")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_of_an_answer_keeps_its_end() -> None:
    chat = Chat.of(MADE["marked"])
    (ids,) = chat.encode(MADE["marked"], ["the answer and more of it"])
    assert chat.cut(ids, 3) == [*ids[:2], chat.end]
    assert chat.cut(ids, len(ids)) == ids


@pytest.mark.parametrize("name", CHATS)
def test_what_the_user_says_is_taken_out_of_a_prompt_of_one_turn(name: str) -> None:
    chat = Chat.of(CHATS[name]())
    for text in ("Which?", "two\n\nlines", ""):
        assert chat.said(chat.prompt([(USER, text)])) == text
    assert chat.said("anything else") is None
