"""Tokenizers that are trained here, and those that are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mhrctl.data.tokenization import (
    SENTINELS,
    SPECIAL,
    Ending,
    around,
    entries,
    is_trained_here,
    load_tokenizer,
    saved_tokenizer,
    sentinel_ids,
    train_tokenizer,
)
from mhrctl.errors import ArtifactError, DataError, ParamsError
from tests.data.kinds import gemma, gpt_2
from tests.models.gguf_files import WORDS, write_gguf

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


def test_the_end_token_may_be_the_padding_that_a_tokenizer_has_not(tmp_path: Path) -> None:
    gpt_2().save_pretrained(str(tmp_path / "gpt_2"))
    with pytest.raises(DataError, match=r"gpt_2': has no padding token; add `pad_token` to its tokenizer_config.json$"):
        load_tokenizer(str(tmp_path / "gpt_2"))
    tokenizer = load_tokenizer(str(tmp_path / "gpt_2"), pads_with_end=True)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == gpt_2().eos_token_id
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    assert saved_tokenizer(tmp_path / "saved").pad_token_id == tokenizer.eos_token_id
    gemma().save_pretrained(str(tmp_path / "gemma"))
    assert load_tokenizer(str(tmp_path / "gemma"), pads_with_end=True).pad_token_id == gemma().pad_token_id
    made(None, eos_token=None, pad_token=None).save_pretrained(str(tmp_path / "neither"))
    with pytest.raises(DataError, match=r"has no end token"):
        load_tokenizer(str(tmp_path / "neither"), pads_with_end=True)


def test_what_stands_around_texts() -> None:
    assert around(made("<s> $A </s>")) == ([0], [2])
    assert around(made("$A </s> <s>")) == ([], [2, 0])
    assert around(made(None)) == ([], [])


def test_a_tokenizer_may_be_trained_to_leave_texts_without_an_end() -> None:
    ends, goes_on = (train_tokenizer("word", TEXTS, vocab_size=200, ends_texts=ends) for ends in (True, False))
    assert ends("the first cat")["input_ids"] == [*goes_on("the first cat")["input_ids"], ends.eos_token_id]
    assert goes_on.eos_token_id == ends.eos_token_id


def test_which_are_trained_here() -> None:
    assert [is_trained_here(name) for name in ("word", "bpe", "google/t5-small")] == [True, True, False]


def made(template: str | None, words: str = "<s> <pad> </s> a b", **special: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer of the user's own, which puts special tokens around texts by a template."""
    vocabulary = {word: number for number, word in enumerate(words.split())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        names = [word for word in template.split() if word != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, vocabulary[name]) for name in dict.fromkeys(names)]
        )
    special = {"pad_token": "<pad>", "eos_token": "</s>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


@pytest.mark.parametrize(
    ("template", "ending", "tokens"),
    [
        ("$A </s>", Ending(2, 1, is_added=False), [3, 4, 2]),
        ("<s> $A </s>", Ending(2, 1, is_added=False), [0, 3, 4, 2]),
        ("$A </s> <s>", Ending(2, 2, is_added=False), [3, 4, 2, 0]),  # mBART's, whose last token is the language
        ("<s> $A", Ending(2, 1, is_added=True), [0, 3, 4, 2]),
        ("</s> $A", Ending(2, 1, is_added=True), [2, 3, 4, 2]),
        (None, Ending(2, 1, is_added=True), [3, 4, 2]),
    ],
)
def test_every_text_ends_whatever_the_tokenizer_puts_after_it(template: str, ending: Ending, tokens: list[int]) -> None:
    tokenizer = made(template)
    assert Ending.of(tokenizer) == ending
    assert ending.encode(tokenizer, ["a b"]) == [tokens]
    assert 2 in ending.encode(tokenizer, [""])[0]


def test_a_cut_keeps_the_end() -> None:
    assert Ending(2, 1, is_added=False).cut([3, 4, 5, 2], 3) == [3, 4, 2]
    assert Ending(2, 2, is_added=False).cut([3, 4, 5, 2, 0], 4) == [3, 4, 2, 0]
    assert Ending(2, 1, is_added=True).cut([3, 2], 2) == [3, 2]
    assert Ending(2, 2, is_added=False).cut([3, 4, 2, 0], 1) == [0]


def test_a_tokenizer_of_bert_ends_with_its_separator() -> None:
    tokenizer = made("<s> $A </s>", eos_token=None, sep_token="</s>")
    assert Ending.of(tokenizer).end == 2


def test_a_tokenizer_without_an_end_is_rejected(tmp_path: Path) -> None:
    made(None, eos_token=None).save_pretrained(str(tmp_path))
    with pytest.raises(DataError, match=r"has no end token, .*; add `eos_token` to its tokenizer_config.json"):
        load_tokenizer(str(tmp_path))


def test_sentinels_that_a_tokenizer_has_not_come_after_all_that_it_has() -> None:
    tokenizer = made("$A </s>", "<s> <pad> </s> a <extra_id_1> b")
    assert sentinel_ids(tokenizer)[:4] == [6, 4, 7, 8]
    assert len(set(sentinel_ids(tokenizer))) == SENTINELS
    assert tokenizer.decode([3, 6, 30, 5], skip_special_tokens=True) == "a b"
    trained = train_tokenizer("word", TEXTS, vocab_size=200)
    assert sentinel_ids(trained) == list(range(3, 3 + SENTINELS))


def test_entries_count_the_ids_that_are_left_out() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<pad>": 9}, unk_token="a")), pad_token="<pad>"
    )
    assert (len(tokenizer), entries(tokenizer)) == (2, 10)


@pytest.mark.parametrize(("kind", "size"), [("word", 20), ("word", len(SPECIAL)), ("bpe", 20), ("bpe", len(SPECIAL) + 4)])
def test_a_vocabulary_too_small_for_what_it_must_hold_is_rejected(kind: str, size: int) -> None:
    texts = [] if size == len(SPECIAL) else TEXTS
    with pytest.raises(ParamsError, match=rf"^vocab_size {size}: .* {len(SPECIAL)} special tokens"):
        train_tokenizer(kind, texts, vocab_size=size)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_files_are_a_line_that_names_them(tmp_path: Path, file: str, text: str) -> None:
    train_tokenizer("word", TEXTS, vocab_size=200).save_pretrained(str(tmp_path))
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError) as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    if text != "{}":
        with pytest.raises(ArtifactError, match=r"run `mhrctl prepare`"):
            saved_tokenizer(tmp_path)


def test_what_prepare_has_not_written_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer_config.json: is missing; run `mhrctl prepare`"):
        saved_tokenizer(tmp_path)


CHAT = "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<turn_end>\n{% endfor %}"


def test_a_tokenizer_comes_out_of_a_gguf_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", tokenizer=True, chat=CHAT)
    tokenizer = load_tokenizer(str(tmp_path), gguf="tiny.gguf")
    assert entries(tokenizer) == WORDS  # and no end of GPT-2's besides
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    ids = tokenizer("the ant<turn_end>, the the")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["the", "\u0120ant", "<turn_end>", ",", "\u0120the", "\u0120the"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the ant, the the"
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    read = saved_tokenizer(tmp_path / "saved")
    assert read("the ant<turn_end>, the the")["input_ids"] == ids
    assert read.chat_template == tokenizer.chat_template == CHAT


def test_a_gguf_file_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(DataError, match=r"^tokenizer_gguf 'tiny.gguf' of '.*': cannot be loaded: ") as error:
        load_tokenizer(str(tmp_path), gguf="tiny.gguf")
    assert "\n" not in str(error.value)


def test_a_gguf_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^tokenizer_gguf 'no.gguf' of '.*': there is no such file$"):
        load_tokenizer(str(tmp_path), gguf="no.gguf")
