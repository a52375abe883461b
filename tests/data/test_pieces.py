"""Tokens of pieces are those of whole texts, for any text and any tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Tokenizer

from mhrctl.data import pieces as module
from mhrctl.data.pieces import Pieces
from mhrctl.data.tokenization import bare_tokens, train_tokenizer, whole_tokens
from tests.data.kinds import gpt_2

TEXTS = ["Name the capital of France: Paris.", "cafe\u0301 cliche\u0301 \ufb01ne a\u0308", "one, two; three <extra_id_0> 1999"]


def unigram() -> PreTrainedTokenizerBase:
    """Of T5's kind."""
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *((letter, -4.0) for letter in "abcdefinoprst")]
    return T5Tokenizer([*scores, ("\u2581the", -1.0), ("ca", -1.5), ("\u2581one", -3.0)], extra_ids=4)


def made(**parts: object) -> PreTrainedTokenizerBase:
    """A tokenizer that splits at white space, and whatever else it is to be."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=80, special_tokens=["<s>", "</s>", "<unk>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def around() -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])


PIECEWISE: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "word": lambda: train_tokenizer("word", TEXTS, vocab_size=90),
    "bpe": lambda: train_tokenizer("bpe", TEXTS, vocab_size=120),
    "bpe without an end": lambda: train_tokenizer("bpe", TEXTS, vocab_size=120, ends_texts=False),
    "unigram": unigram,
    "lower": lambda: made(
        normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    ),
    "begun": lambda: made(post_processor=around()),
}
WHOLE: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "bytes": gpt_2,
    "replacing": lambda: made(normalizer=normalizers.Replace(" ", "_")),
    "twice": lambda: made(
        post_processor=processors.TemplateProcessing(single="<s> $A $A", special_tokens=[("<s>", 0)]),
    ),
    "dropping": lambda: made(model=models.BPE(unk_token="<unk>", dropout=0.5)),
}
MADE = {name: make() for name, make in (PIECEWISE | WHOLE).items()}


def test_which_tokenizers_look_at_one_piece_at_a_time() -> None:
    assert {name for name, tokenizer in MADE.items() if Pieces(tokenizer).piecewise} == set(PIECEWISE)
    spaced = made()
    spaced.add_tokens([AddedToken("of France")])
    assert not Pieces(spaced).piecewise


@pytest.mark.parametrize("name", [name for name in MADE if name != "dropping"])
@given(
    texts=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.text("ab,. \n\t\x1c\u0301\u0308\u00a0\u200b\u3000\ufb01\u00a8\u1160\U0001f3fd<>/s", max_size=30),
            st.sampled_from([*TEXTS, "", " ", "</s> a", "a<extra_id_1>b\r\nc", "\n\n"]),
        ),
        max_size=4,
    )
)
def test_tokens_are_those_of_the_tokenizer(name: str, texts: list[str]) -> None:
    tokenizer = MADE[name]
    known = Pieces(tokenizer)
    for _ in range(2):  # the second time every piece is known
        assert whole_tokens(known, texts) == whole_tokens(tokenizer, texts)
        assert bare_tokens(known, texts) == bare_tokens(tokenizer, texts)


def test_every_letter_splits_or_does_not_as_in_the_tokenizer() -> None:
    letters = [chr(code) for code in range(0x3100) if not 0xD800 <= code < 0xE000]
    texts = [f"b{letter}c" for letter in letters]
    assert bare_tokens(Pieces(MADE["bpe"]), texts) == bare_tokens(MADE["bpe"], texts)


def test_many_texts_and_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUND", 3)
    monkeypatch.setattr(module, "KNOWN", 5)
    texts = [f"{word} of {number}\nFrance" for word in ("Paris", "one", "cafe\u0301") for number in range(4)]
    assert whole_tokens(Pieces(MADE["bpe"]), texts) == whole_tokens(MADE["bpe"], texts)


def test_a_known_piece_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noting(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
        asked.extend(texts)
        return bare_tokens(tokenizer, texts)

    monkeypatch.setattr(module, "bare_tokens", noting)
    known = Pieces(MADE["bpe"])
    whole_tokens(known, ["Paris of France"])
    whole_tokens(known, ["France of", "Paris Paris"])
    assert sorted(asked) == ["France", "Paris", "of"]


def test_a_piece_that_is_other_tokens_within_a_text_is_left_to_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    def merging(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
        return [
            [*ids, 99] if " \u0301" in text else ids for text, ids in zip(texts, bare_tokens(tokenizer, texts), strict=True)
        ]

    monkeypatch.setattr(module, "bare_tokens", merging)
    known, texts = Pieces(MADE["bpe"]), ["of \u0301e", "of e\u0301"]
    for _ in range(2):
        assert known(texts, add_special_tokens=False)["input_ids"] == merging(MADE["bpe"], texts)
