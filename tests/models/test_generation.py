"""How backbones come to their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import (
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from mhrctl.data.tokenization import train_tokenizer
from mhrctl.errors import DataError
from mhrctl.models.backbones import config_vocabulary, load_pretrained, vocabulary
from mhrctl.models.generation import (
    Answering,
    answering,
    apply,
    described,
    generation_of,
    is_causal,
    require_readable,
    require_tokenizer,
    stops,
    unused_settings,
)

PLAIN: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
CONFIG = T5Config.from_dict({"vocab_size": 64, **PLAIN})


def how(brought: dict[str, Any], config: PretrainedConfig = CONFIG, **chosen: Any) -> Answering:
    return answering(config, GenerationConfig(**brought), chosen, where="it", vocabulary=64)


def test_a_plain_checkpoint_has_no_settings() -> None:
    plain = how(PLAIN | {"max_length": 20, "num_beams": 1, "temperature": 1.0, "length_penalty": 1.0, "use_cache": True})
    assert plain == Answering(start=0, pad=0, end=(1,), settings={}, unused=())


def test_what_shapes_answers_is_taken_and_can_be_put_out_of_force() -> None:
    brought = PLAIN | {"min_length": 12, "no_repeat_ngram_size": 2}
    assert how(brought).settings == {"min_length": 12, "no_repeat_ngram_size": 2}
    assert how(brought, min_length=0).settings == {"no_repeat_ngram_size": 2}
    assert how(brought, min_length=None, repetition_penalty=1.5).settings == {
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.5,
    }
    assert how(brought, neutral=True) == how(PLAIN)
    assert how(brought, neutral=True, min_length=3).settings == {"min_length": 3}


def test_what_is_not_used_is_named_with_where_it_is_set() -> None:
    unused = how(PLAIN | {"do_sample": True, "temperature": 0.5, "num_beams": 4, "max_length": 200, "stop_strings": ["."]})
    assert unused.settings == {}
    assert set(unused.unused) == {"do_sample", "temperature", "num_beams", "max_length", "stop_strings"}
    assert unused_settings(unused).endswith(
        "; set beams of `adapt` and `evaluate`; set max_new_tokens of `adapt` and `evaluate`"
    )


@pytest.mark.parametrize(
    ("brought", "config", "message"),
    [
        (
            {"pad_token_id": 0, "eos_token_id": 1},
            {"decoder_start_token_id": None},
            "has a decoder_start_token_id; set backbone",
        ),
        ({**PLAIN, "pad_token_id": None}, {"pad_token_id": None}, "has a pad_token_id; set backbone.generation.pad_token_id"),
        ({**PLAIN, "eos_token_id": None}, {"eos_token_id": None}, "has a eos_token_id; set backbone.generation.eos_token_id"),
        (
            {**PLAIN, "decoder_start_token_id": 2},
            {},
            "config.json says decoder_start_token_id 0, generation_config.json 2; set",
        ),
        ({**PLAIN, "eos_token_id": [1, 64]}, {}, r"eos_token_id \[1, 64\] is none of its 64 tokens"),
        ({**PLAIN, "min_length": -3}, {}, r"generation_config.json: min_length -3: .*; set backbone.generation.min_length"),
    ],
)
def test_tokens_that_nothing_says_or_two_files_say_otherwise_are_rejected(
    brought: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        how(brought, T5Config.from_dict(CONFIG.to_dict() | config))


def test_a_token_is_taken_from_either_file_or_from_params() -> None:
    without = T5Config.from_dict(CONFIG.to_dict() | {"decoder_start_token_id": None})
    taken = how(PLAIN | {"decoder_start_token_id": 5}, without)
    assert (taken.start, taken.settings) == (5, {"decoder_start_token_id": 5})
    assert how({"pad_token_id": 0, "eos_token_id": [1, 3]}).end == (1, 3)
    assert how(PLAIN, decoder_start_token_id=7).start == 7
    assert how(PLAIN | {"decoder_start_token_id": 2}, decoder_start_token_id=0).settings == {}


def test_a_model_answers_as_it_was_decided(tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.generation_config = GenerationConfig(**PLAIN, min_length=6, num_beams=4, num_return_sequences=2, do_sample=True)
    ids = torch.tensor([[5, 6, 1]])
    apply(tiny_t5, how(PLAIN | {"min_length": 6, "num_beams": 4}, neutral=True))
    generate = cast("Any", tiny_t5).generate
    plain = generate(ids, max_new_tokens=8)
    apply(tiny_t5, how(PLAIN, suppress_tokens=plain[0, 1:].tolist(), min_length=8, decoder_start_token_id=3))
    shaped = generate(ids, max_new_tokens=8)
    assert len(plain) == len(shaped) == 1
    assert shaped.shape[1] == 9
    assert (int(plain[0, 0]), int(shaped[0, 0])) == (0, 3)
    assert not set(plain[0, 1:].tolist()) & set(shaped[0, 1:].tolist())
    assert tiny_t5.config.decoder_start_token_id == 3


def test_a_folder_is_read_as_transformers_reads_it(tmp_path: Path, tiny_t5: T5ForConditionalGeneration) -> None:
    assert generation_of(tmp_path, CONFIG).eos_token_id == 1
    tiny_t5.generation_config.min_length = 4
    tiny_t5.save_pretrained(tmp_path)
    assert generation_of(tmp_path, CONFIG).min_length == 4
    (tmp_path / "generation_config.json").unlink()
    says = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(says | {"no_repeat_ngram_size": 3}))  # as old checkpoints do
    assert generation_of(tmp_path, CONFIG).no_repeat_ngram_size == 3
    assert load_pretrained(str(tmp_path))[1].settings == {"no_repeat_ngram_size": 3}


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_is_not_passed_over(tmp_path: Path, text: str) -> None:
    require_readable(tmp_path)
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(DataError, match=r"generation_config.json: "):
        generation_of(tmp_path, CONFIG)


def test_a_tokenizer_speaks_of_the_same_tokens() -> None:
    tokenizer = train_tokenizer("word", ["a b c"], vocab_size=60)
    entries = len(tokenizer)

    def fit(known: int = 64, **tokens: Any) -> None:
        require_tokenizer(tokenizer, how(PLAIN, **tokens), vocabulary=known, where="it", place="there")

    fit()
    fit(known=entries, eos_token_id=[4, 1])
    with pytest.raises(DataError, match=rf"there: a tokenizer of {entries} entries does not fit it, which has {entries - 1}"):
        fit(known=entries - 1)
    with pytest.raises(DataError, match=r"there: texts end with </s> \(1\), but it stops at 2 or 3; set prepare.tokenizer"):
        fit(eos_token_id=[2, 3])
    with pytest.raises(
        DataError, match=r"there: padding is <pad> \(0\), but it pads with 5; .* backbone.generation.pad_token_id"
    ):
        fit(pad_token_id=5)


def test_a_composite_backbone_has_its_sizes_and_tokens_in_its_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    part: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder, decoder = BertConfig(vocab_size=50, **part), BertConfig(vocab_size=40, **part)
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    assert config_vocabulary(model.config) == vocabulary(model) == 40
    model.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"has a decoder_start_token_id; set backbone.generation.decoder_start_token_id"):
        load_pretrained(str(tmp_path))
    loaded, tokens = load_pretrained(str(tmp_path), generation={"decoder_start_token_id": 3, "eos_token_id": 4})
    assert (tokens.start, tokens.end, tokens.pad) == (3, (4,), 0)
    assert loaded.config.decoder_start_token_id == 3


def llama(**tokens: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, **tokens
    )


CAUSAL = llama()
ENDS: dict[str, Any] = {"eos_token_id": [1, 4], "bos_token_id": 2}


def test_a_causal_model_needs_an_end_alone() -> None:
    plain = how(ENDS, llama(eos_token_id=[1, 4]))
    assert plain == Answering(start=None, pad=1, end=(1, 4), settings={}, unused=())
    padded = how(ENDS | {"pad_token_id": 3}, llama(eos_token_id=[1, 4], pad_token_id=5))
    assert (padded.pad, padded.settings) == (3, {"pad_token_id": 3})  # which two files may say otherwise, since it is masked
    assert how(ENDS, CAUSAL, pad_token_id=5).settings == {"pad_token_id": 5, "eos_token_id": [1, 4]}
    with pytest.raises(DataError, match=r"has a eos_token_id; set backbone.generation.eos_token_id"):
        how({}, GPT2Config(vocab_size=64, eos_token_id=None))
    with pytest.raises(DataError, match=r"pad_token_id 64 is none of its 64 tokens"):
        how(ENDS | {"pad_token_id": 64}, CAUSAL)


def test_settings_that_a_causal_model_cannot_have_are_rejected() -> None:
    with pytest.raises(DataError, match=r"decoder_start_token_id: is for encoder-decoders"):
        how(ENDS, CAUSAL, decoder_start_token_id=0)
    with pytest.raises(DataError, match=r"forced_bos_token_id: is for encoder-decoders"):
        how(ENDS, CAUSAL, forced_bos_token_id=3)
    assert how(ENDS | {"forced_bos_token_id": 3}, llama(eos_token_id=[1, 4])).settings == {}
    with pytest.raises(DataError, match=r"min_length 5: counts the prompt in a causal model; .* and min_new_tokens"):
        how(ENDS | {"min_length": 5}, CAUSAL)
    assert how(ENDS | {"min_length": 5}, CAUSAL, min_length=0, min_new_tokens=2).settings["min_new_tokens"] == 2


def test_a_kind_is_read_from_the_config() -> None:
    assert is_causal(CAUSAL)
    assert not is_causal(CONFIG)


def test_a_causal_model_answers_as_it_was_decided() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama()).eval()
    model.generation_config = GenerationConfig(**ENDS, do_sample=True, num_beams=4, cache_implementation="hybrid")
    apply(model, how(ENDS, CAUSAL))
    assert (model.config.pad_token_id, model.generation_config.pad_token_id) == (1, 1)
    assert model.generation_config.eos_token_id == [1, 4]
    assert model.generation_config.decoder_start_token_id is None
    assert not hasattr(model.config, "decoder_start_token_id")
    ids = torch.tensor([[5, 6]])
    answer = cast("Any", model).generate(ids, max_new_tokens=6)
    assert torch.equal(answer, cast("Any", model).generate(ids, max_new_tokens=6))  # and not sampled
    apply(model, how(ENDS, CAUSAL, eos_token_id=int(answer[0, 2])))
    assert cast("Any", model).generate(ids, max_new_tokens=6).shape[1] == 3


def test_a_tokenizer_of_a_causal_model_may_pad_otherwise() -> None:
    tokenizer = train_tokenizer("word", ["a b c"], vocab_size=60)

    def fit(brought: dict[str, Any], **chosen: Any) -> None:
        require_tokenizer(tokenizer, how(brought, CAUSAL, **chosen), vocabulary=64, where="it", place="there")

    fit(ENDS)  # the end pads, and is one of several
    fit(ENDS | {"pad_token_id": 3})
    word = int(tokenizer.get_vocab()["a"])
    with pytest.raises(DataError, match=rf"there: it pads with a \({word}\), which is an ordinary token and would be read"):
        fit(ENDS | {"pad_token_id": word})
    with pytest.raises(DataError, match=r"there: texts end with </s> \(1\), but it stops at 4; set prepare.tokenizer"):
        fit(ENDS, eos_token_id=4)
    given = how(ENDS, CAUSAL, eos_token_id=4)  # what ends a turn of a chat need be no end of the checkpoint
    require_tokenizer(tokenizer, given, vocabulary=64, where="it", place="there", chat=True)
    tokenizer.pad_token = None
    fit(ENDS)


def test_settings_are_written_in_a_line() -> None:
    assert described({"min_length": 12, "early_stopping": True}) == "min_length 12, early_stopping true"
    assert len(described({"suppress_tokens": list(range(500))})) < 100


def test_generation_stops_where_the_answers_of_a_tokenizer_end() -> None:
    tokenizer = train_tokenizer("word", ["a b c"], vocab_size=60)
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=64)
    )
    for ends, options in ((1, {}), ([4, 1], {}), (4, [4, 1]), ([4, 5], [4, 5, 1]), (None, [1])):
        model.generation_config.eos_token_id = ends
        assert stops(model, tokenizer) == ({"eos_token_id": options} if options else {})
