"""Tokenizers that are trained here, and those that are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.data.tokenization import SENTINELS, SPECIAL, is_trained_here, load_tokenizer, saved_tokenizer, train_tokenizer
from mhrctl.errors import DataError

TEXTS = ["reverse the list: ant bee", "drop repeated items: cat cat", "keep the first: ant"]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_texts_end_with_the_end_token_and_are_decoded_as_they_were(kind: str) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=200)
    ids = tokenizer("the first cat")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id == SPECIAL.index("</s>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the first cat"
    assert tokenizer.pad_token_id == 0


def test_special_tokens_stand_first_in_t5s_order() -> None:
    tokenizer = train_tokenizer("word", TEXTS, vocab_size=200)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    assert tokenizer("<extra_id_31>", add_special_tokens=False)["input_ids"] == [2 + SENTINELS]


def test_a_vocabulary_is_no_larger_than_asked_for_and_the_rest_is_unknown() -> None:
    tokenizer = train_tokenizer("word", TEXTS, vocab_size=len(SPECIAL) + 3)
    assert len(tokenizer) == len(SPECIAL) + 3
    assert tokenizer("zebra", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]


def test_a_saved_tokenizer_is_read_back(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe", TEXTS, vocab_size=200)
    tokenizer.save_pretrained(str(tmp_path))
    for read in (saved_tokenizer(tmp_path), load_tokenizer(str(tmp_path))):
        assert read(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer 'no/such' \(revision v1\): cannot be loaded: ") as error:
        load_tokenizer("no/such", revision="v1")
    assert "\n" not in str(error.value)
    tokenizer = train_tokenizer("word", TEXTS, vocab_size=200)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(DataError, match=r"has no padding token"):
        load_tokenizer(str(tmp_path))


def test_which_are_trained_here() -> None:
    assert [is_trained_here(name) for name in ("word", "bpe", "google/t5-small")] == [True, True, False]
