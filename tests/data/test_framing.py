"""Framings: how prompts and answers become tokens, by tokenizers of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase

from mhrctl.config.tasks import ANSWER_CUE, FramingName
from mhrctl.data.framing import FRAMINGS, Framed, framed_tokenizer, framing_by
from mhrctl.data.tokenization import Ending, train_tokenizer
from mhrctl.errors import DataError
from tests.data.kinds import BYTES, CHATS, KINDS, PIECES, TEXTS, gpt_2, wrapped

MADE = {name: make() for name, make in KINDS.items()}
CAUSAL = FRAMINGS["causal"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=30)
"""Without the mark that stands for a space where words are pieces, which is then one with the spaces beside it."""


def framed(name: str) -> tuple[PreTrainedTokenizerBase, Framed]:
    return MADE[name], CAUSAL.of(MADE[name])


def one(name: str, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of its answer."""
    tokenizer, tokens = framed(name)
    return tokens.inputs.encode(tokenizer, [prompt])[0], tokens.answers.encode(tokenizer, [answer])[0]


def whole(name: str, text: str) -> list[int]:
    """What the tokenizer makes of a text, with what it puts before it and an end token."""
    tokenizer = MADE[name]
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids if ids[-1] == tokenizer.eos_token_id else [*ids, int(tokenizer.eos_token_id)]


def test_settings_name_the_rows() -> None:
    assert get_args(FramingName) == tuple(FRAMINGS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("answer", ["answer", "Paris", "the Paris of the South", "an answer: all of it"])
@pytest.mark.parametrize("prompt", ["Output:", "Definition: name the capital.\n\nInput: France\nOutput:", "say it"])
def test_an_answer_is_what_follows_in_the_whole_text(name: str, prompt: str, answer: str) -> None:
    before, after = one(name, prompt, answer)
    assert before + after == whole(name, f"{prompt} {answer}")
    assert after[-1] == MADE[name].eos_token_id not in after[:-1]


@pytest.mark.parametrize("name", [*BYTES, *PIECES])
@given(prompt=TEXT, answer=TEXT.filter(bool))
def test_any_prompt_and_answer_are_the_whole_text(name: str, prompt: str, answer: str) -> None:
    prompt = CAUSAL.prompt(prompt, ANSWER_CUE)
    before, after = one(name, prompt, answer)
    text = prompt + (answer if answer.startswith(" ") else f" {answer}")
    assert before + after == whole(name, text)
    said = MADE[name].decode(before + after, skip_special_tokens=True)
    assert said.lstrip(" ") == text.lstrip(" ")  # pieces do not tell a text with a space before it from one without


@pytest.mark.parametrize("name", KINDS)
def test_prompts_begin_as_the_tokenizer_begins_texts_and_have_no_end(name: str) -> None:
    tokenizer, tokens = framed(name)
    begin = {"llama_3": ["<|begin|>"], "llama_2": ["<s>"], "mistral": ["<s>"], "gemma": ["<bos>"]}.get(name, [])
    first, second = tokens.inputs.encode(tokenizer, ["Output:", ""])
    assert first == [*map(tokenizer.convert_tokens_to_ids, begin), *tokenizer("Output:", add_special_tokens=False)["input_ids"]]
    assert second == tokenizer.convert_tokens_to_ids(begin)
    assert tokenizer.eos_token_id not in first


def test_a_space_that_a_tokenizer_puts_before_texts_is_not_put_before_answers() -> None:
    tokenizer, _ = framed("llama_2")
    assert tokenizer.convert_ids_to_tokens(tokenizer(" answer", add_special_tokens=False)["input_ids"]) == [
        "\u2581",
        "\u2581answer",
    ]
    assert tokenizer.convert_ids_to_tokens(one("llama_2", "", "answer")[1]) == ["\u2581answer", "</s>"]


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_may_begin_with_its_space_and_may_be_empty(name: str) -> None:
    tokenizer, tokens = framed(name)
    plain, spaced, empty = tokens.answers.encode(tokenizer, ["answer", " answer", ""])
    assert plain == spaced
    assert empty == [tokenizer.eos_token_id]


def test_a_tokenizer_whose_tokens_go_across_spaces_gives_the_answer_alone() -> None:
    vocabulary = {text: number for number, text in enumerate(["<pad>", "</s>", "a", " ", "b", " b", "a b"])}
    backend = Tokenizer(models.BPE(vocabulary, [(" ", "b"), ("a", " b")]))
    tokenizer = wrapped(backend, pad_token="<pad>", eos_token="</s>")
    assert tokenizer("a b")["input_ids"] == [6]
    assert CAUSAL.of(tokenizer).answers.encode(tokenizer, ["b", "a"]) == [[5, 1], [3, 2, 1]]


@pytest.mark.parametrize("name", KINDS)
@given(prompt=TEXT, longest=st.integers(1, 20))
def test_a_cut_keeps_the_beginning_and_the_end_of_a_prompt(name: str, prompt: str, longest: int) -> None:
    tokenizer, tokens = framed(name)
    begin, ids = tokens.inputs.encode(tokenizer, ["", f"{prompt} the answer"])
    cut = tokens.inputs.cut(ids, longest)
    assert len(cut) == min(len(ids), longest)
    assert cut[: len(begin)] == begin[:longest]
    assert cut[len(begin) :] == ids[len(begin) :][max(len(ids) - longest, 0) :]


def test_a_cut_of_an_answer_keeps_its_end() -> None:
    tokenizer, tokens = framed("gpt_2")
    (ids,) = tokens.answers.encode(tokenizer, ["the answer and more of it"])
    assert tokens.answers.cut(ids, 3) == [*ids[:2], tokenizer.eos_token_id]
    assert tokens.answers.cut(ids, len(ids)) == ids
    assert tokens.answers.cut(ids, 1) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_tokenizers_that_are_trained_for_it_end_no_prompt(kind: str) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=200, ends_texts=CAUSAL.ends_prompts)
    tokens = CAUSAL.of(tokenizer)
    (before,), (after,) = tokens.inputs.encode(tokenizer, ["the answer is"]), tokens.answers.encode(tokenizer, ["Paris"])
    assert before + after == [*tokenizer("the answer is Paris")["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.decode(before + after, skip_special_tokens=True) == "the answer is Paris"


@pytest.mark.parametrize(
    ("prompt", "cued"),
    [
        ("say it", "say it\nOutput:"),
        ("Input: x\nOutput: ", "Input: x\nOutput:"),
        ("\u7b54\u6848\uff1a\n", "\u7b54\u6848\uff1a"),
        ("  indented? \n\n", "  indented?\nOutput:"),
        ("  ", "\nOutput:"),
    ],
)
def test_a_prompt_ends_in_a_cue_without_white_space(prompt: str, cued: str) -> None:
    assert CAUSAL.prompt(prompt, ANSWER_CUE) == cued
    assert CAUSAL.prompt(prompt, " => ") == cued.replace("\nOutput:", " =>" if "Input" not in prompt else "\nOutput:")
    assert CAUSAL.prompt(prompt, "") == prompt.rstrip()
    assert FRAMINGS["encoder_decoder"].prompt(prompt, ANSWER_CUE) == prompt


@pytest.mark.parametrize("name", ["words", "llama_3", "gemma"])
@given(texts=st.lists(TEXT, min_size=1, max_size=3), longest=st.integers(1, 12))
def test_for_an_encoder_decoder_all_texts_end(name: str, texts: list[str], longest: int) -> None:
    tokenizer = MADE[name]
    ending, tokens = Ending.of(tokenizer), FRAMINGS["encoder_decoder"].of(tokenizer)
    for part in (tokens.inputs, tokens.answers):
        ids = part.encode(tokenizer, texts)
        assert ids == [whole(name, text) for text in texts]
        assert [part.cut(row, longest) for row in ids] == [ending.cut(row, longest) for row in ids]
        assert all(part.cut(row, longest)[-1] == tokenizer.eos_token_id for row in ids)


def test_a_chat_puts_an_empty_line_between_parts_and_no_cue() -> None:
    chat = framing_by("causal", chat=True)
    assert (chat.between, framing_by("causal").between, framing_by("encoder_decoder").between) == ("\n\n", ": ", ": ")
    assert chat.prompt("say it ", ANSWER_CUE) == "say it "
    assert framing_by("causal") is CAUSAL
    tokens = chat.of(CHATS["marked"]())
    assert tokens.answers is tokens.chat is not None
    assert framing_by("causal").of(CHATS["marked"]()).chat is None


def test_a_tokenizer_is_loaded_as_its_framing_needs_it(tmp_path: Path) -> None:
    CHATS["marked"]().save_pretrained(str(tmp_path / "marked"))
    gpt_2().save_pretrained(str(tmp_path / "gpt_2"))
    plain, chat = (framed_tokenizer(str(tmp_path / "marked"), framing="causal", chat=chat) for chat in (False, True))
    assert (plain.eos_token, chat.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert plain.pad_token_id == chat.pad_token_id == plain.eos_token_id
    assert chat.convert_tokens_to_ids("<|im_end|>") == plain.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(DataError, match=r"has no padding token"):
        framed_tokenizer(str(tmp_path / "marked"))
    with pytest.raises(DataError, match=r"^tokenizer '.*gpt_2': has no chat template; name the tokenizer of a model that was"):
        framed_tokenizer(str(tmp_path / "gpt_2"), framing="causal", chat=True)
