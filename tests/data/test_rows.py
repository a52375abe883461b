"""Rows: what was encoded, cut and counted."""

from __future__ import annotations

import pytest

from mhrctl.data.chat import end_turns
from mhrctl.data.rows import SCHEMA, TEST_SCHEMA, Draft, Encoder
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.errors import DataError
from mhrctl.suites.task import Example
from tests.data.kinds import CHATS, gpt_2, llama_3

EXAMPLES = [
    Example("a", "one two three four five", ("two",), ("one", "two"), seeds=(3, 4), group="g"),
    Example("b", "one", ("three", "four five one two three"), ()),
]


def encoder(longest: int = 4) -> Encoder:
    texts = [example.input for example in EXAMPLES]
    tokenizer = train_tokenizer("word", ["say " + text for text in texts], vocab_size=100)
    return Encoder("count", lambda text: f"say {text}", tokenizer, longest, longest)


def test_texts_are_encoded_as_one_by_one_and_cut_with_their_end_kept() -> None:
    made = encoder()
    rows = made.table([("train", EXAMPLES[0], 0), ("test", EXAMPLES[1], 1)], SCHEMA).to_pylist()
    ids = [made.tokenizer(f"say {example.input}")["input_ids"] for example in EXAMPLES]
    assert rows[0]["input_ids"] == [*ids[0][:3], ids[0][-1]]
    assert rows[1]["input_ids"] == ids[1]
    assert [row["target_tokens"] for row in rows] == [2, 4]
    assert rows[1]["target_ids"][0] == made.tokenizer("three")["input_ids"]
    assert made.cut == {"input": 1, "target": 1, "choice": 0}
    assert (rows[0]["split"], rows[1]["reference"], rows[0]["task"]) == ("train", 1, "count")


def test_gold_names_the_choice_of_each_target() -> None:
    rows = encoder().table([("train", example, 0) for example in EXAMPLES], TEST_SCHEMA).to_pylist()
    assert [row["gold"] for row in rows] == [[1], []]
    assert rows[0]["choice_ids"][1] == rows[0]["target_ids"][0]
    assert [(row["seeds"], row["group"]) for row in rows] == [([3, 4], "g"), ([], "")]


def causal(longest: int = 4, prompt: str = "say {}") -> Encoder:
    return Encoder("count", prompt.format, gpt_2(), longest, longest, "causal")


def test_causal_prompts_end_without_an_end_token_and_are_cut_at_their_beginning() -> None:
    made = causal(longest=6)
    rows = made.table([("train", EXAMPLES[0], 0), ("test", EXAMPLES[1], 1)], SCHEMA).to_pylist()
    prompts = [made.tokenizer(f"say {example.input}")["input_ids"] for example in EXAMPLES]
    end = made.tokenizer.eos_token_id
    assert len(prompts[0]) > 6
    assert rows[0]["input_ids"] == prompts[0][-6:]
    assert rows[1]["input_ids"] == prompts[1][-6:]
    assert rows[0]["target_ids"] == [[*made.tokenizer(" two")["input_ids"], end]]
    long = made.tokenizer(" four five one two three")["input_ids"]
    assert rows[1]["target_ids"][1] == [*long[:5], end]
    assert made.cut == {"input": 1 + (len(prompts[1]) > 6), "target": 1, "choice": 0}
    assert [row["input_tokens"] for row in rows] == [len(row["input_ids"]) for row in rows]


def test_causal_choices_are_framed_as_their_target_is() -> None:
    rows = causal(longest=20).table([("train", EXAMPLES[0], 0)], TEST_SCHEMA).to_pylist()
    assert rows[0]["choice_ids"][rows[0]["gold"][0]] == rows[0]["target_ids"][0]


def test_a_prompt_without_a_token_is_rejected() -> None:
    blank: list[Draft] = [("train", EXAMPLES[0], 0)]
    with pytest.raises(DataError, match=r"^task count, example a: its prompt has no token, .*; set prepare.answer_cue$"):
        causal(prompt="").table(blank, SCHEMA)
    begun = Encoder("count", "".format, llama_3(), 4, 4, "causal").table(blank, SCHEMA).to_pylist()
    assert begun[0]["input_ids"] == [llama_3().bos_token_id]


def chatting(longest: int = 60) -> Encoder:
    tokenizer = CHATS["marked"]()
    end_turns(tokenizer)
    return Encoder("count", lambda text: f"Say it.\n\n{text}", tokenizer, longest, 5, "causal", chat=True)


def test_of_a_chat_a_prompt_is_the_whole_of_what_the_model_reads() -> None:
    made = chatting()
    row, other = made.table([("train", EXAMPLES[0], 0), ("test", EXAMPLES[1], 1)], SCHEMA).to_pylist()
    asked = "<|im_start|>user\nSay it.\n\none two three four five<|im_end|>\n<|im_start|>assistant\n"
    assert row["prompt"] == asked
    assert row["input_ids"] == made.tokenizer(asked)["input_ids"]
    assert made.tokenizer.decode(row["target_ids"][0]) == "two<|im_end|>"
    assert made.tokenizer.decode(other["target_ids"][1]).startswith("four")
    assert other["target_ids"][1][-1] == row["target_ids"][0][-1] == made.tokenizer.eos_token_id
    assert row["choice_ids"][1] == row["target_ids"][0]
    assert made.cut == {"target": 1, "choice": 0}


def test_of_a_chat_the_input_alone_is_cut_and_counted() -> None:
    whole = chatting().table([("train", EXAMPLES[0], 0)], SCHEMA).to_pylist()[0]
    made = chatting(whole["input_tokens"] - 3)
    row = made.table([("train", EXAMPLES[0], 0)], SCHEMA).to_pylist()[0]
    assert row["prompt"] == whole["prompt"]
    said = made.tokenizer.decode(row["input_ids"])
    assert said.startswith("<|im_start|>user\nSay it.\n\none two")
    assert said.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "five" not in said
    assert made.cut["input"] == 1


def test_a_conversation_is_asked_in_its_turns() -> None:
    turns = (("system", "Be short."), ("user", "q"), ("assistant", "a"), ("user", "r"))
    examples = [Example("a", "User: q", ("b",), turns=turns), Example("b", "Assistant: a", ("b",), turns=turns[:-1])]
    first, second = chatting(99).table([("train", example, 0) for example in examples], SCHEMA).to_pylist()
    said = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in [*turns[:-1], ("user", "Say it.\n\nr")]]
    assert first["prompt"] == "".join(said) + "<|im_start|>assistant\n"
    assert "user\nSay it.\n\nAssistant: a<|im_end|>" in second["prompt"]  # which does not end with the user


def test_what_is_wrong_with_a_chat_names_the_example() -> None:
    with pytest.raises(DataError, match=r"^task count, example a: the chat template alone has \d+ tokens; raise prepare.max_"):
        chatting(4).table([("train", EXAMPLES[0], 0)], SCHEMA)
    refused = CHATS["without_system"]()
    turns = (("assistant", "a"), ("user", "r"))
    with pytest.raises(DataError, match=r"^task count, example c: tokenizer '.*': its chat template cannot .*: not in turn$"):
        Encoder("count", str, refused, 99, 5, "causal", chat=True).table(
            [("train", Example("c", "r", ("b",), turns=turns), 0)], SCHEMA
        )
