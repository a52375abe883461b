"""What a tokenizer cannot say of texts."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mhrctl.data.rows import TEST_SCHEMA, Encoder
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.data.vocabulary import Alike, Unsayable
from mhrctl.suites.task import Example
from tests.data.kinds import gpt_2, llama_3


def unsayable(*examples: Example, tokenizer: PreTrainedTokenizerBase | None = None, longest: int = 99) -> Unsayable:
    """What is counted of examples of a split `test`, cut to `longest` tokens."""
    tokenizer = tokenizer or train_tokenizer("word", ["say one two three"], vocab_size=100)
    counted = Unsayable(tokenizer)

    def ids(text: str) -> list[int]:
        tokens = tokenizer(text)["input_ids"]
        return tokens if len(tokens) <= longest else [*tokens[: longest - 1], tokens[-1]]

    for example in examples:
        gold = [example.choices.index(target) for target in example.targets] if example.choices else []
        counted.add("test", example, ids(example.input), [*map(ids, example.targets)], [*map(ids, example.choices)], gold)
    return counted


def test_texts_with_unknown_tokens_are_counted() -> None:
    counted = unsayable(
        Example("a", "say uno", ("one", "due tre"), ()),
        Example("b", "say one", ("one",), ("one", "due")),
        Example("c", "x", ("x",)),
    )
    assert counted.counts == {"inputs": 2, "targets": 2, "choices": 1, "unsayable": 1, "alike": 0}
    assert counted.wordless == {"test": 1}


def test_a_target_of_known_words_among_others_can_be_said_and_an_empty_one_is_no_fault() -> None:
    assert unsayable(Example("a", "say", ("uno one",)), Example("b", "say", ("",))).counts["unsayable"] == 0


def test_white_space_tokens_before_unknown_ones_say_nothing() -> None:
    """T5's tokenizer reads Greek as a token of white space and an unknown one."""
    tokenizer = Tokenizer(
        models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0), ("a", -2.0)], unk_id=2)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    assert fast("\u03b2")["input_ids"] == [3, 2, 1]
    assert unsayable(Example("a", "a", ("\u03b2",)), tokenizer=fast).counts["unsayable"] == 1
    assert unsayable(Example("a", "a", ("\u03b2", "a")), tokenizer=fast).counts["unsayable"] == 0


@pytest.mark.parametrize(
    ("choices", "target", "alike"),
    [
        (("uno", "due"), "uno", Alike("e", "uno", "due", 2)),
        (("one", "two  ", "two"), "two", Alike("e", "two", "two  ", 2)),
        (("one", "uno", "due"), "one", None),  # which wrong one it would be does not matter
        (("one", "two"), "two", None),
        (("two", "two"), "two", None),  # one text twice is one answer
    ],
)
def test_a_wrong_choice_of_the_same_tokens_is_named(choices: tuple[str, ...], target: str, alike: Alike | None) -> None:
    counted = unsayable(Example("e", "say", (target,), choices))
    assert counted.first_alike == alike
    assert counted.alike == (alike is not None)


def test_choices_can_be_alike_for_being_cut() -> None:
    example = Example("e", "say", ("one two three",), ("one two three", "one two one"))
    assert unsayable(example).first_alike is None
    assert unsayable(example, longest=3).first_alike == Alike("e", "one two three", "one two one", 3)


def test_a_choice_that_is_right_too_is_not_wrong() -> None:
    assert unsayable(Example("e", "say", ("uno", "due"), ("uno", "due", "one"))).alike == 0


def test_an_end_token_that_is_called_unknown_is_not() -> None:
    tokenizer = train_tokenizer("word", ["say one"], vocab_size=100)
    tokenizer.unk_token = tokenizer.eos_token
    assert unsayable(Example("a", "say one", ("one",)), tokenizer=tokenizer).counts["inputs"] == 0


def test_a_begin_token_that_is_called_unknown_is_not() -> None:
    tokenizer = llama_3()
    tokenizer.unk_token = tokenizer.bos_token
    assert tokenizer("say")["input_ids"][0] == tokenizer.unk_token_id
    assert unsayable(Example("a", "say one", ("one",)), tokenizer=tokenizer).counts["inputs"] == 0


def test_choices_that_differ_in_the_space_before_them_are_alike_to_a_causal_model() -> None:
    example = Example("e", "say", ("one",), ("one", " one"))
    encoder = Encoder("count", str, gpt_2(), 20, 20, "causal")
    encoder.table([("test", example, 0)], TEST_SCHEMA)
    assert encoder.unsayable.first_alike == Alike("e", "one", " one", len(gpt_2()(" one")["input_ids"]) + 1)
