"""The two tokenizers of ROUGE-L: what each makes of many scripts, and which a task has."""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mhrctl.config.tasks import PrepareParams
from mhrctl.evaluation.rouge import AUTO, known_tokenizer, tokenizer_for
from mhrctl.evaluation.text_scores import MERGES, TOKENIZERS, gpt2_tokens, rouge_l

TEXTS = [
    "The quick brown fox can't jump 1,234 times.",
    "  two  spaces \n\n a line\tand a tab ",
    "Zoë, naïve café, Straße, İstanbul, e\u0301",
    "άλφα βήτα γάμμα",
    "Съешь ещё этих мягких французских булок",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好、世界。",
    "こんにちは世界",
    "안녕하세요 세계",
    "😀👩\u200d👩\u200d👧🏽 ¯\\_(ツ)_/¯",
    "< > = != -> → ≤ 5 °C ½ x²",
    "a<|endoftext|>b",
    "\x00\x1b[0m\u202e\ufeff",
    "",
]
GREEK = ["άλφα", "βήτα", "γάμμα"]


def merges() -> bytes:
    return gzip.decompress((files("mhrctl.evaluation") / MERGES).read_bytes())


@pytest.fixture(scope="module")
def transformers_gpt2(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """GPT-2's tokenizer as transformers makes it of the same merges, with the vocabulary in GPT-2's own order."""
    folder = tmp_path_factory.mktemp("gpt2")
    (folder / "merges.txt").write_bytes(merges())
    alone = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [*map(chr, alone), *(chr(256 + number) for number in range(256 - len(alone)))]
    pieces = [line.replace(" ", "") for line in merges().decode().split("\n")[1:] if line]
    vocabulary = {piece: number for number, piece in enumerate([*letters, *pieces, "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer


def test_the_merges_are_those_of_openai() -> None:
    assert hashlib.sha256(merges()).hexdigest() == "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
        in (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    )


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_transformers_without_their_leading_spaces(
    transformers_gpt2: PreTrainedTokenizerBase, text: str
) -> None:
    assert gpt2_tokens(text) == [token.lstrip("Ġ") for token in transformers_gpt2.tokenize(text)]


@given(st.text(max_size=60))
def test_tokens_of_any_text_are_those_of_transformers(transformers_gpt2: PreTrainedTokenizerBase, text: str) -> None:
    assert gpt2_tokens(text) == [token.lstrip("Ġ") for token in transformers_gpt2.tokenize(text)]


@given(st.text(max_size=40), st.text(max_size=40))
def test_english_is_upstreams_own_to_the_last_digit(prediction: str, reference: str) -> None:
    upstream = RougeScorer(["rougeL"], use_stemmer=True).score(target=reference, prediction=prediction)
    assert rouge_l(prediction, [reference]) == 100 * upstream["rougeL"].fmeasure


@pytest.mark.parametrize(
    ("prediction", "reference", "english", "gpt2"),
    [
        ("the cats sat", "the cat sat", 100.0, 200 / 3),  # GPT-2's tokens are not stemmed
        ("Paris", "paris", 100.0, 0.0),  # nor folded: Paris is one token, paris is par and is
        ("άλφα βήτα", "άλφα βήτα", 0.0, 100.0),
        ("5", "-5", 100.0, 200 / 3),
        ("<", "<", 0.0, 100.0),
        ("<", "=", 0.0, 0.0),
        ("", "x", 0.0, 0.0),
    ],
)
def test_scores_by_hand(prediction: str, reference: str, english: float, gpt2: float) -> None:
    assert rouge_l(prediction, [reference]) == pytest.approx(english)
    assert rouge_l(prediction, [reference], "gpt2") == pytest.approx(gpt2)
    assert rouge_l(prediction, ["\u2581", reference], "gpt2") == pytest.approx(gpt2)  # the best reference counts


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip()])
def test_a_right_answer_in_any_script_is_right_by_gpt2_however_its_accents_are_encoded(text: str) -> None:
    assert rouge_l(unicodedata.normalize("NFD", text), [unicodedata.normalize("NFC", text)], "gpt2") == 100


def test_by_reference_reads_each_as_it_can() -> None:
    assert rouge_l("The cats sat", ["the cat sat"], "by_reference") == 100
    assert rouge_l("caf\u00e9 x", ["caf\u00c9 x"], "by_reference") == 100
    for right, wrong in (("???", "!!!"), ("άλφα", "βήτα"), ("άλφα 5", "βήτα 5"), ("→", "")):
        assert rouge_l(right, [right], "by_reference") == 100
        assert rouge_l(wrong, [right], "by_reference") < 100
    assert rouge_l("good", ["???", "goods"], "by_reference") == 100  # the best reference counts


@pytest.mark.parametrize("source", ["jsonl", "hub", "compositional"])
@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (["yes", "No, 5!"], "english"),
        (["Anna"] * 9 + ["Zoë"], "english"),  # a name in ten
        (["Anna"] * 8 + ["Zoë"] * 2, "gpt2"),
        (["un café"] * 2 + ["un thé"], "gpt2"),
        (GREEK, "gpt2"),
        (["alpha"] * 99 + ["άλφα"], "by_reference"),  # which could not be answered rightly otherwise
        (["alpha"] * 99 + ["άλφα 5"], "by_reference"),  # which any 5 would answer rightly otherwise
        (["great"] * 309 + ["???"], "by_reference"),  # one odd record changes no other's score
        (["a", "<"], "gpt2"),
        (["a", "→", "b"], "gpt2"),
        (["नमस्ते", "हाँ"], "gpt2"),
        (["你好", "再见"], "gpt2"),
        (["5 °C", "7 €", "“x”", "a → b"], "english"),  # signs are no letters in any script
    ],
)
def test_a_task_of_ones_own_has_the_tokenizer_that_reads_its_references(
    source: str, references: list[str], expected: str
) -> None:
    assert tokenizer_for(AUTO, source, references) == tokenizer_for(AUTO, source, reversed(references)) == expected


@pytest.mark.parametrize("source", ["superni", "t0"])
def test_the_english_benchmarks_are_scored_as_upstream_scores_them(source: str) -> None:
    assert tokenizer_for(AUTO, source, ["un café"] * 10) == "english"
    assert tokenizer_for(AUTO, source, ["<", "a", "b"]) == "english"
    assert tokenizer_for(AUTO, source, [*GREEK, "a"]) == "gpt2"  # no task of theirs


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_setting_decides(name: str) -> None:
    assert tokenizer_for(name, "jsonl", GREEK) == tokenizer_for(name, "superni", ["a"]) == known_tokenizer(name) == name


def test_the_setting_knows_the_tokenizers() -> None:
    (field,) = [field for name, field in PrepareParams.model_fields.items() if name == "rouge_tokenizer"]
    assert field.annotation is not None
    assert field.annotation.__args__ == (AUTO, *TOKENIZERS)
    with pytest.raises(ValueError, match=r"unknown ROUGE tokenizer 'gpt3'; did you mean 'gpt2'\?"):
        known_tokenizer("gpt3")
