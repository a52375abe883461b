"""The prompts of Super-NaturalInstructions, word by word, and what fits into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase

from mhrctl.data.chat import USER, Chat
from mhrctl.data.tokenization import bare_tokens, train_tokenizer
from mhrctl.suites.superni.prompts import PROMPTS, prompter
from mhrctl.suites.task import Task
from tests.data.kinds import BYTES, CHATS, PIECES, wrapped

TASK = Task(
    name="task7_echo",
    role="training",
    metric="rouge_l",
    definition=" Say it back ",
    examples=[],
    positives=(("hi", "hi!"), ("so long ", "bye"), ("well", "now")),
)


def words(text: str) -> int:
    """Words and an end token."""
    return len(text.split()) + 1


def first_words(text: str, number: int) -> str:
    return " ".join(text.split()[:number])


def put(prompt: str, task: Task = TASK, **changes: Any) -> Callable[[str], str]:
    settings: dict[str, Any] = {"task_name": False, "definition": True, "positives": 0, "longest": 1024}
    return prompter(PROMPTS[prompt], task, **{"count": words, "cut": first_words, **settings, **changes})


@pytest.mark.parametrize(
    ("prompt", "changes", "expected"),
    [
        ("original", {"definition": False}, "Now complete the following example -\nInput: why?\nOutput: "),
        (
            "original",
            {},
            "Definition: Say it back.\n\nNow complete the following example -\nInput: why?\nOutput: ",
        ),
        (
            "original",
            {"task_name": True, "positives": 2},
            (
                "task7_echo. Definition: Say it back.\n\n"
                " Positive Example 1 -\nInput: hi.\n Output: hi!\n"
                " Positive Example 2 -\nInput: so long.\n Output: bye.\n"
                "Now complete the following example -\nInput: why?\nOutput: "
            ),
        ),
        ("tk_instruct", {"definition": False}, "Now complete the following example -\nInput: why?\nOutput:"),
        (
            "tk_instruct",
            {},
            "Task definition: Say it back.\nNow complete the following example -\nInput: why?\nOutput:",
        ),
        (
            "tk_instruct",
            {"task_name": True, "positives": 2},
            (
                "task7_echo. Task definition: Say it back.\n"
                " Positive Example 1 -\nInput: hi.\n Output: hi! </s>\n\n"
                " Positive Example 2 -\nInput: so long.\n Output: bye. </s>\n\n"
                "Now complete the following example -\nInput: why?\nOutput:"
            ),
        ),
    ],
)
def test_prompts_word_by_word(prompt: str, changes: dict[str, Any], expected: str) -> None:
    assert put(prompt, **changes)(" why? ") == expected


def test_a_full_stop_unless_there_is_punctuation() -> None:
    assert [put("original", definition=False)(text).splitlines()[1] for text in ("a", "a.", "a)", "a\n", "{b}", "é")] == [
        "Input: a.",
        "Input: a.",
        "Input: a)",
        "Input: a.",
        "Input: {b}",
        "Input: é.",
    ]


def test_a_task_without_a_definition_tells_none() -> None:
    bare = Task(name="t", role="test", metric="rouge_l", definition="", examples=[])
    assert put("original", bare, positives=3)("x") == "Now complete the following example -\nInput: x.\nOutput: "


# Words with the definition and the end token: 14 and 15. The worked examples have 8, 9 and 8, with `</s>` one more each.
FITS = {
    "original": ((13, 0), (21, 0), (22, 1), (30, 1), (31, 2), (38, 2), (39, 3)),
    "tk_instruct": ((15, 0), (23, 0), (24, 1), (33, 1), (34, 2), (42, 2), (43, 3)),
}


@pytest.mark.parametrize(
    ("prompt", "longest", "shown"), [(name, *fits) for name, all_fits in FITS.items() for fits in all_fits]
)
def test_examples_are_added_while_the_whole_fits(prompt: str, longest: int, shown: int) -> None:
    text = put(prompt, positives=3, longest=longest)("x")
    assert text.count("Positive Example") == shown
    if shown:
        assert words(text) <= longest


def test_the_first_example_that_does_not_fit_ends_them() -> None:
    task = Task(
        name="t", role="test", metric="rouge_l", definition="d", examples=[], positives=(("long " * 50, "a"), ("b", "c"))
    )
    assert "Positive" not in put("original", task, positives=2, longest=40)("x")


def test_no_more_examples_than_asked_for() -> None:
    assert put("original", positives=1)("x").count("Positive Example") == 1
    assert put("original", positives=9)("x").count("Positive Example") == 3


def test_what_is_too_long_is_cut_and_ends_in_output_again() -> None:
    text = put("tk_instruct", longest=14)("a b c d e f")
    assert text == "Task definition: Say it back. Now complete the following example - Input:\nOutput:"
    assert words(text) == 14
    assert put("tk_instruct", longest=2)("a") == "\nOutput:"
    assert put("tk_instruct", longest=1)("a") == "\nOutput:"


def test_what_just_fits_is_not_cut() -> None:
    whole = put("tk_instruct")("a b c")
    assert put("tk_instruct", longest=words(whole))("a b c") == whole
    assert put("tk_instruct", longest=words(whole) - 1)("a b c") != whole


def test_the_original_prompt_is_cut_by_its_caller() -> None:
    assert put("original", positives=3, longest=5)("a b c") == put("original")("a b c")


def test_a_tasks_words_are_counted_once_for_all_instances() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    ask = put("original", positives=3, count=count)
    counted.clear()
    for number in range(50):
        ask(f"instance {number}")
    assert len(counted) == 50
    assert not any("Definition" in text or "Positive" in text for text in counted)


def test_nothing_is_counted_where_nothing_can_be_left_out() -> None:
    def count(text: str) -> int:
        raise AssertionError(text)

    assert put("original", count=count)("x").endswith("Output: ")


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    texts = [put("tk_instruct", positives=3)("the quick brown fox jumps over the lazy dog")] * 3
    return {kind: train_tokenizer(kind, texts, vocab_size=90 if kind == "bpe" else 200) for kind in ("word", "bpe")}


@pytest.mark.parametrize("kind", ["word", "bpe"])
@pytest.mark.parametrize("prompt", list(PROMPTS))
def test_lengths_are_those_of_the_tokenizer(kind: str, prompt: str, tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    """The sum over parts decides as tokenising the whole prompt would, at every limit."""
    tokenizer = tokenizers[kind]

    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    def cut(text: str, tokens: int) -> str:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text[: offsets[tokens - 1][1]] if tokens else ""

    text = "quick, the dog jumps unseenword"
    whole = [put(prompt, positives=shown)(text) for shown in range(4)]
    for longest in range(count(whole[0]) - 10, count(whole[3]) + 2):
        made = put(prompt, positives=3, longest=longest, count=count, cut=cut)(text)
        fitting = [candidate for candidate in whole if count(candidate) <= longest]
        if fitting:
            assert made == fitting[-1]
        elif prompt == "original":
            assert made == whole[0]
        else:
            assert made.endswith("\nOutput:")
            assert count(made) == longest


def joining() -> PreTrainedTokenizerBase:
    """A tokenizer of GPT-2's kind that has a token for an empty line, but not for one that a word follows."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<end>"], show_progress=False
    )
    backend.train_from_iterator(["back.\n\n"] * 9, trainer)
    return wrapped(backend, eos_token="<end>")


def counting(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> Callable[[str], int]:
    template = Chat.of(tokenizer) if chat else None

    def count(text: str) -> int:
        return len(bare_tokens(tokenizer, [template.prompt([(USER, text)])])[0] if template else tokenizer(text)["input_ids"])

    return count


def test_lengths_of_parts_need_not_add_up() -> None:
    """So that the next test can fail."""
    head, body = "Definition: Say it back.\n\n", PROMPTS["original"].instance.format("quick.")
    sizes = [counting(joining(), chat=False)(text) for text in (head, body, head + body)]
    assert sizes[0] + sizes[1] == sizes[2] - 1


@pytest.mark.parametrize("make", [*BYTES.values(), *PIECES.values(), joining, *CHATS.values()])
@pytest.mark.parametrize("prompt", list(PROMPTS))
def test_lengths_are_those_of_any_tokenizer(make: Callable[[], PreTrainedTokenizerBase], prompt: str) -> None:
    """Also of one that joins white space to what follows it, and of a chat, whose template puts more around the whole."""
    count = counting(make(), chat=make in CHATS.values())
    whole = [put(prompt, positives=shown)("quick") for shown in range(4)]
    for longest in {size + near for size in map(count, whole) for near in range(-3, 4)} - set(range(count(whole[0]))):
        made = put(prompt, positives=3, longest=longest, count=count, cut=first_words)("quick")
        assert made == [candidate for candidate in whole if count(candidate) <= longest][-1]
