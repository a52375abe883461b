"""Which layers share a routing, and that sharing is what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaModuleConfig,
)

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.granularity import GRANULARITIES, by_coder, routing_parts
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.attach import inject, linear_shapes, new_adapter, shape_adapters
from mhrctl.models.backbones import shape_model
from mhrctl.models.layouts import layers_of
from tests.adapters.test_inventory import randomised

LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 50,
}
T5 = [
    f"{coder}.block.{block}.layer.{layer}"
    for coder, sublayers in (("encoder", ("0.SelfAttention.q", "1.DenseReluDense.wo")), ("decoder", ("0.SelfAttention.q",)))
    for block in range(4)
    for layer in sublayers
]


@pytest.mark.parametrize(
    ("granularity", "blocks", "parts"),
    [
        ("layer", 1, 12),
        ("sublayer", 1, 12),
        ("block", 1, 8),
        ("block", 3, 4),
        ("coder", 1, 2),
        ("model", 1, 1),
    ],
)
def test_number_of_routings(granularity: str, blocks: int, parts: int) -> None:
    assert len(set(routing_parts(T5, granularity, blocks).values())) == parts


def test_names_of_parts() -> None:
    layer = "encoder.block.5.layer.1.DenseReluDense.wi_0"
    names = {name: routing_parts([layer], name, 1)[layer] for name in GRANULARITIES}
    assert names == {
        "layer": layer,
        "sublayer": "encoder.block.5.layer.1.DenseReluDense",
        "block": "encoder.block.5",
        "coder": "encoder",
        "model": "model",
    }
    assert routing_parts([layer], "block", 4)[layer] == "encoder.block.4-7"
    bart = "model.decoder.layers.2.self_attn.q_proj"
    assert routing_parts([bart], "coder")[bart] == "model.decoder"
    assert routing_parts([bart], "block")[bart] == "model.decoder.layers.2"


CAUSAL: dict[str, tuple[PretrainedConfig, list[str], list[str]]] = {
    # family: its config, the sub-layers of its first block, its blocks
    "llama": (
        LlamaConfig(num_key_value_heads=2, **LLAMA_LIKE),
        ["model.layers.0.self_attn", "model.layers.0.mlp"],
        ["model.layers.0", "model.layers.1", "model.layers.2"],
    ),
    "gemma3": (
        Gemma3TextConfig(num_key_value_heads=2, head_dim=4, **LLAMA_LIKE),
        ["model.layers.0.self_attn", "model.layers.0.mlp"],
        ["model.layers.0", "model.layers.1", "model.layers.2"],
    ),
    "gpt2": (
        GPT2Config(n_layer=3, n_embd=16, n_head=4, vocab_size=50),
        ["transformer.h.0.attn", "transformer.h.0.mlp"],
        ["transformer.h.0", "transformer.h.1", "transformer.h.2"],
    ),
    "gpt_neox": (
        GPTNeoXConfig(**LLAMA_LIKE),
        ["gpt_neox.layers.0.attention", "gpt_neox.layers.0.mlp"],
        ["gpt_neox.layers.0", "gpt_neox.layers.1", "gpt_neox.layers.2"],
    ),
    "opt": (
        OPTConfig(
            hidden_size=16, ffn_dim=32, num_hidden_layers=3, num_attention_heads=4, vocab_size=50, word_embed_proj_dim=16
        ),
        ["model.decoder.layers.0.self_attn", "model.decoder.layers.0"],  # whose feed-forward is in no module of its own
        ["model.decoder.layers.0", "model.decoder.layers.1", "model.decoder.layers.2"],
    ),
}


def full(config: PretrainedConfig) -> list[str]:
    return [layer for layer in layers_of("full", linear_shapes(shape_model(config))) if "lm_head" not in layer]


@pytest.mark.parametrize("family", CAUSAL)
def test_models_without_encoder_share_by_layer_sublayer_block_or_all_of_them(family: str) -> None:
    config, sublayers, blocks = CAUSAL[family]
    layers = full(config)
    parts = {
        name: list(dict.fromkeys(routing_parts(layers, name).values())) for name in ("layer", "sublayer", "block", "model")
    }
    assert parts["layer"] == layers
    assert parts["sublayer"][:2] == sublayers
    assert len(parts["sublayer"]) == 2 * len(blocks)
    assert parts["block"] == blocks
    assert parts["model"] == ["model"]
    assert set(routing_parts(layers, "block", 2).values()) == {f"{blocks[0]}-1", f"{blocks[2]}-3"}


@pytest.mark.parametrize("family", CAUSAL)
def test_models_without_encoder_have_no_coders(family: str) -> None:
    said = r"^granularity coder: this backbone has no encoder and decoder; use layer, sublayer, block or model$"
    model = shape_model(CAUSAL[family][0])
    assert by_coder(full(CAUSAL[family][0])) == {}
    params = PretrainParams(steps=1, batch_size=1, skills=3, granularity="coder")
    with pytest.raises(ParamsError, match=said):
        shape_adapters(METHODS["poly"], params, linear_shapes(model), 1, heads=1, tasks=2)
    with pytest.raises(ParamsError, match=said):
        new_adapter(model, METHODS["poly"], params, heads=1, seed=0, tasks=2)
    if family != "opt":  # of whose names a BART's decoder may have some
        with pytest.raises(ParamsError, match=said):
            routing_parts(full(CAUSAL[family][0]), "coder")


@pytest.mark.parametrize(
    "config",
    [
        T5Config(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=50),
        BartConfig(d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=50),
        T5GemmaConfig(
            encoder=T5GemmaModuleConfig(num_key_value_heads=2, head_dim=4, **LLAMA_LIKE),
            decoder=T5GemmaModuleConfig(num_key_value_heads=2, head_dim=4, **LLAMA_LIKE),
            vocab_size=50,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_encoder_decoders_have_coders(config: PretrainedConfig) -> None:
    layers = full(config)
    halves = by_coder(layers)
    assert list(halves) == ["encoder", "decoder"]
    assert sorted(halves["encoder"] + halves["decoder"]) == sorted(layers)
    parts = routing_parts(layers, "coder")
    assert len({parts[layer] for layer in halves["encoder"]}) == len({parts[layer] for layer in halves["decoder"]}) == 1
    assert set(parts.values()) in ({"encoder", "decoder"}, {"model.encoder", "model.decoder"})
    assert by_coder(list(dict.fromkeys(parts.values()))) == {"encoder": [parts[layers[0]]], "decoder": [parts[layers[-1]]]}


def test_one_half_of_an_encoder_decoder_is_a_coder() -> None:
    decoder = [layer for layer in T5 if layer.startswith("decoder")]
    assert by_coder(decoder) == {"decoder": decoder}
    assert set(routing_parts(decoder, "coder").values()) == {"decoder"}
    across = ["model.decoder.layers.0.self_attn.k_proj", "model.decoder.layers.0.encoder_attn.k_proj"]
    assert by_coder(across) == {"decoder": across}


def test_layers_in_no_block_are_rejected() -> None:
    with pytest.raises(ParamsError, match=r"layer lm_head is in no numbered block; use layer, sublayer or model"):
        routing_parts(["lm_head"], "block")
    with pytest.raises(ParamsError, match="unknown granularity 'fine'"):
        routing_parts(["lm_head"], "fine")


def test_a_shared_routing_is_the_same_routing_in_each_of_its_layers(tiny_t5: T5ForConditionalGeneration) -> None:
    """Equal to an inventory with a routing a layer whose rows are copies, in the forward pass and summed in gradients."""
    shapes = inject(tiny_t5, "full")
    shared = randomised(Inventory(shapes, InventoryConfig(heads=4, skills=3, granularity="coder"), tasks=5))
    separate = Inventory(shapes, InventoryConfig(heads=4, skills=3), tasks=5)
    part_of = routing_parts(separate.layers, "coder")
    places = torch.tensor([shared.parts.index(part_of[layer]) for layer in separate.layers])
    shared_routing, routing = shared.routing_parameters()[0], separate.routing_parameters()[0]
    with torch.no_grad():
        for mine, theirs in zip(separate.skill_parameters(), shared.skill_parameters(), strict=True):
            mine.copy_(theirs)
        routing.copy_(shared_routing[:, places])
    ids = torch.tensor([[1, 4]])
    ours, theirs = shared(ids), separate(ids)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name])
    grads: list[Tensor] = []
    for slots, parameter in ((ours, shared_routing), (theirs, routing)):
        grads.append(torch.autograd.grad(sum(slot.square().sum() for slot in slots.values()), parameter)[0])
    torch.testing.assert_close(grads[0], torch.zeros_like(grads[0]).index_add(1, places, grads[1]))
