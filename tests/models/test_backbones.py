"""Backbones: what identifies them, where they are, and their shapes without storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from mhrctl.artifacts.cards import Card, read_card
from mhrctl.artifacts.facts import BackboneFacts
from mhrctl.errors import ArtifactError, DataError
from mhrctl.models.backbones import (
    T5_SIZES,
    config_vocabulary,
    fingerprint,
    framing_of,
    is_tied,
    load_backbone,
    load_pretrained,
    location,
    open_backbone,
    pretrained_config,
    shape_model,
    sized_model,
    vocabulary,
)
from tests.conftest import mhrctl


def test_a_missing_model_is_one_line() -> None:
    with pytest.raises(DataError, match=r"backbone.name 'no/such': cannot be loaded"):
        load_pretrained("no/such", revision="main")


def test_a_fingerprint_is_of_names_shapes_dtypes_and_every_number(tiny_t5: T5ForConditionalGeneration) -> None:
    before = fingerprint(tiny_t5)
    assert fingerprint(tiny_t5) == before
    weight = tiny_t5.encoder.block[0].layer[0].SelfAttention.q.weight
    with torch.no_grad():
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    changed = fingerprint(tiny_t5)
    assert changed != before
    assert fingerprint(tiny_t5.to(dtype=torch.bfloat16)) not in (before, changed)  # type: ignore[call-arg]


def test_a_known_size_is_built_without_storage_and_untied() -> None:
    model = sized_model("t5-small")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not is_tied(model)
    assert 75e6 < model.num_parameters() < 78e6  # T5 v1.1 small has 77 million
    assert list(T5_SIZES) == ["t5-small", "t5-base", "t5-large", "t5-xl", "t5-xxl"]


def test_a_shape_has_the_names_of_the_model_and_its_tie(tiny_t5: T5ForConditionalGeneration) -> None:
    for tied in (True, False):
        shape = shape_model(tiny_t5.config, tied=tied)
        assert is_tied(shape) == tied
        assert [name for name, _ in shape.named_modules()] == [name for name, _ in tiny_t5.named_modules()]


def test_an_unknown_size_is_rejected_with_the_known() -> None:
    with pytest.raises(DataError, match=r"--backbone \(a size: t5-small, .*; or a config\) 't5-huge': cannot be loaded"):
        sized_model("t5-huge")


@pytest.mark.parametrize("kind", ["bert", "roberta", "vit"])
def test_a_config_of_neither_kind_is_rejected(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        DataError,
        match=rf"a {kind} model; an encoder-decoder \(such as T5\) or a causal language model \(such as Llama\) is needed",
    ):
        pretrained_config(str(tmp_path))


def test_a_kind_has_its_framing() -> None:
    assert framing_of(T5Config()) == "encoder_decoder"
    assert framing_of(LlamaConfig()) == framing_of(GPT2Config()) == "causal"


TEXT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
IMAGES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def tiny_llama(*, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config: dict[str, Any] = TEXT | {"tie_word_embeddings": tied}
    return LlamaForCausalLM(LlamaConfig(**config)).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_a_causal_model_is_loaded_whole(tmp_path: Path, tied: bool) -> None:
    model = tiny_llama(tied=tied)
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    loaded, how = load_pretrained(str(tmp_path))
    assert fingerprint(loaded) == fingerprint(model)
    assert is_tied(loaded) == tied
    assert (how.start, how.pad, how.end, how.settings) == (None, 0, (1,), {})
    assert config_vocabulary(pretrained_config(str(tmp_path))) == vocabulary(loaded) == 60
    shape = sized_model(str(tmp_path))
    assert {name: each.shape for name, each in shape.state_dict().items()} == {
        name: each.shape for name, each in model.state_dict().items()
    }
    assert not is_tied(shape_model(model.config, tied=False))


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_causal_model_without_a_tensor_is_rejected(tmp_path: Path, name: str) -> None:
    tiny_llama(tied=False).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({key: each for key, each in weights.items() if key != name}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=rf"{name} is missing"):
        load_pretrained(str(tmp_path))


def gemma3() -> PreTrainedModel:
    options: dict[str, Any] = {"mm_tokens_per_image": 4, "image_token_id": 59, "boi_token_index": 57, "eoi_token_index": 58}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=TEXT, vision_config=IMAGES, **options))


def mistral3() -> PreTrainedModel:
    options: dict[str, Any] = {"vision_config": IMAGES | {"model_type": "pixtral", "head_dim": 8}, "image_token_index": 59}
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=TEXT | {"model_type": "mistral"}, **options))


@pytest.mark.parametrize("make", [gemma3, mistral3])
def test_of_a_model_of_images_the_text_model_is_loaded(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(0)
    whole = make().eval()
    whole.save_pretrained(tmp_path)
    text, _ = load_pretrained(str(tmp_path))
    assert text.config.model_type == {"gemma3": "gemma3_text", "mistral3": "mistral"}[whole.config.model_type]
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(text(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert not [name for name, _ in text.named_modules() if "vision" in name]
    assert is_tied(text)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({key: each for key, each in weights.items() if key != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"model.layers.1.mlp.up_proj.weight is missing"):
        load_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "place"),
    [("hub", "google/t5"), ("local", "data/backbone/../checkpoint"), ("scratch", "data/backbone")],
)
def test_the_weights_are_where_the_card_says(source: Literal["hub", "local", "scratch"], place: str) -> None:
    path = "../checkpoint" if source == "local" else None
    facts = BackboneFacts(
        source=source, name="google/t5", path=path, revision="main", parameters=1, tied_output=False, fingerprint="f"
    )
    card = Card(stage="backbone", version=1, params={}, parents={}, libraries={}, facts=facts)
    assert location(Path("data/backbone"), card) == place


def test_a_missing_backbone_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run `mhrctl backbone`"):
        load_backbone(tmp_path)


def test_an_adapter_of_another_backbone_is_rejected(copy: Path) -> None:
    folder = copy / "data/pretrain/lora-s0"
    card = read_card(folder, stage="pretrain", command="mhrctl pretrain")
    prepared, backbone = copy / "data/prepare", copy / "data/backbone"
    model, tokenizer = open_backbone(prepared, backbone, card, folder)
    assert fingerprint(model) == card.facts.backbone
    assert len(tokenizer) <= model.config.vocab_size
    assert mhrctl("backbone", "--set", "backbone.seed=1", "-C", copy) == 0
    with pytest.raises(ArtifactError, match="backbone"):
        open_backbone(prepared, backbone, card, folder)
    open_backbone(prepared, backbone, None, None)  # the bare one fits always
