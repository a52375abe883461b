"""Layouts choose layers by what they do, whatever a family calls them."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from mhrctl.errors import ParamsError
from mhrctl.models.attach import linear_shapes
from mhrctl.models.layouts import LAYOUTS, ROUTERS, layers_of, layout_name, require_experts, unreachable_experts
from tests.models.families import DECODERS, ENCODER_DECODERS, SIZES, UNPACKED, decoder, encoder_decoder

_LLAMA = {
    "full": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "light": "k_proj v_proj up_proj",
    "attention": "q_proj k_proj v_proj o_proj",
}
_FUSED = {"attention": "query_key_value dense", "full": "query_key_value dense dense_h_to_4h dense_4h_to_h"}
_GPT2 = {"full": "c_attn c_fc c_proj", "attention": "c_attn c_proj"}
_ATTENTION_ALONE = {"full": _LLAMA["attention"], "attention": _LLAMA["attention"]}
_LATENT = "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj"
_T5 = {"full": "q k v o wi_0 wi_1 wo", "light": "k v wi_1", "attention": "q k v o"}
_BART = {
    "full": "q_proj k_proj v_proj out_proj fc1 fc2",
    "light": "k_proj v_proj fc1",
    "attention": "q_proj k_proj v_proj out_proj",
}
LAYERS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "smollm3"), _LLAMA),
    **dict.fromkeys(("granite", "stablelm", "t5gemma", "cohere2", "qwen2_moe", "olmo3", "exaone4"), _LLAMA),
    "glm4": {"full": "q_proj k_proj v_proj o_proj gate_up_proj down_proj", "attention": _LLAMA["attention"]},
    "nemotron": {
        "full": "q_proj k_proj v_proj o_proj up_proj down_proj",
        "light": _LLAMA["light"],
        "attention": _LLAMA["attention"],
    },
    "gemma3n_text": {  # layers.N.laurel, and the embeddings of each layer
        "full": f"{_LLAMA['full']} linear_left linear_right per_layer_input_gate per_layer_projection"
        " per_layer_model_projection 0",
        "light": _LLAMA["light"],
        "attention": _LLAMA["attention"],
    },
    "deepseek_v3": {"full": f"{_LATENT} gate_proj up_proj down_proj", "attention": _LATENT},
    "qwen3_5_text": {
        "full": f"{_LLAMA['full']} in_proj_qkv in_proj_z in_proj_b in_proj_a out_proj",
        "light": _LLAMA["light"],
        "attention": f"{_LLAMA['attention']} in_proj_qkv in_proj_z in_proj_b in_proj_a out_proj",
    },
    "qwen3_next": {
        "full": f"{_LLAMA['full']} in_proj_qkvz in_proj_ba out_proj",
        "light": _LLAMA["light"],
        "attention": f"{_LLAMA['attention']} in_proj_qkvz in_proj_ba out_proj",
    },
    "phi": {
        "full": "q_proj k_proj v_proj dense fc1 fc2",
        "light": "k_proj v_proj fc1",
        "attention": "q_proj k_proj v_proj dense",
    },
    "phi3": {"full": "qkv_proj o_proj gate_up_proj down_proj", "attention": "qkv_proj o_proj"},
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _GPT2),
    "gptj": {
        "full": "q_proj k_proj v_proj out_proj fc_in fc_out",
        "light": "k_proj v_proj fc_in",
        "attention": "q_proj k_proj v_proj out_proj",
    },
    "lfm2": {"full": "q_proj k_proj v_proj out_proj in_proj w1 w2 w3", "attention": "q_proj k_proj v_proj out_proj"},
    "mamba2": {"full": "in_proj out_proj"},
    **dict.fromkeys(("gpt_neox", "bloom", "falcon"), _FUSED),
    "opt": _BART,
    "starcoder2": {
        "full": "q_proj k_proj v_proj o_proj c_fc c_proj",
        "light": "k_proj v_proj c_fc",
        "attention": "q_proj k_proj v_proj o_proj",
    },
    **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss"), _ATTENTION_ALONE),
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5"), _T5),
    **dict.fromkeys(("bart", "mbart", "pegasus"), _BART),
}
"""{family: {layout: the last names of its layers}}; a layout that is not there is refused."""


def linears_of(kind: str) -> list[str]:
    return list(linear_shapes(encoder_decoder(kind) if kind in ENCODER_DECODERS else decoder(kind)))


def test_every_family_has_its_layouts_here() -> None:
    assert LAYERS.keys() == {*DECODERS, *UNPACKED, *ENCODER_DECODERS}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layout_has_the_layers_that_do_its_part_in_every_block(kind: str, layout: str) -> None:
    linears = linears_of(kind)
    if layout not in LAYERS[kind]:
        with pytest.raises(ParamsError, match=f"targets: layout {layout}: this model does not have (keys, values|such linear)"):
            layers_of(layout, linears)
        return
    chosen = layers_of(layout, linears)
    assert {name.rpartition(".")[2] for name in chosen} == {*LAYERS[kind][layout].split()}
    assert chosen == [name for name in linears if name in set(chosen)]
    last_names = [name.rpartition(".")[2] for name in chosen]
    # Two blocks have each layer once; those of a decoder that reads an encoder have attention to it besides.
    several = {"gpt2": {2, 4}, "gpt_bigcode": {2, 4}, "gemma3n_text": {1, 2, 4}} | {
        each: {2, 4, 6} for each in ENCODER_DECODERS
    }
    several |= {each: {1, 2} for each in ("lfm2", "qwen3_5_text", "qwen3_next", "deepseek_v3")}  # blocks are of two sorts
    times = several.get(kind, {2})
    assert {last_names.count(name) for name in last_names} <= times
    if layout == "full":
        left = {name.rpartition(".")[2] for name in linears if name not in chosen}
        assert left <= {"lm_head", "embed_out", "out_proj", *ROUTERS}
        routers = {"qwen2_moe": 2, "qwen3_next": 2, "gemma3n_text": 12}.get(kind, 0)
        assert len(chosen) == len(linears) - 1 - routers  # and the output layer


@pytest.mark.parametrize("kind", ["gpt2", "bart", "t5", "llama", "t5gemma", "gpt_neox"])
def test_a_layout_is_known_by_the_layers_that_it_chose(kind: str) -> None:
    linears = linears_of(kind)
    for layout in LAYERS[kind]:
        assert layout_name(reversed(layers_of(layout, linears)), linears) == layout
    assert layout_name(linears, linears) == "other"
    assert layout_name(linears[:2], linears) == "other"


def test_where_all_linear_layers_are_of_attention_it_names_them() -> None:
    linears = linears_of("mixtral")
    assert layout_name(layers_of("attention", linears), linears) == "attention"


def test_gpt2s_two_layers_of_one_name_are_told_apart_by_their_parents() -> None:
    chosen = layers_of("attention", linears_of("gpt2"))
    assert [name for name in chosen if "c_proj" in name] == [f"transformer.h.{block}.attn.c_proj" for block in (0, 1)]


@pytest.mark.parametrize("router", ["gate", "router", "shared_expert_gate"])
def test_routers_of_experts_are_no_part_of_a_layout(router: str) -> None:
    linears = ["model.layers.0.self_attn.q_proj", f"model.layers.0.mlp.{router}", "model.layers.0.mlp.experts.0.gate_proj"]
    assert layers_of("full", linears) == [linears[0], linears[2]]
    assert layers_of("attention", linears) == [linears[0]]


def test_a_model_without_attention_has_no_such_layout() -> None:
    with pytest.raises(ParamsError, match=r"targets: layout attention: this model does not have such linear layers; name"):
        layers_of("attention", ["backbone.layers.0.mixer.in_proj", "lm_head"])


@pytest.mark.parametrize("layout", ["full", "light"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "qwen3_next"])
def test_experts_that_are_no_linear_layers_are_not_left_out_in_silence(kind: str, layout: str) -> None:
    config, linears = decoder(kind).config, linears_of(kind)
    message = (
        rf"targets: layout {layout}: the [34] experts of a layer are no linear layers, so they would be left out; set target"
    )
    with pytest.raises(ParamsError, match=message):
        require_experts(layout, unreachable_experts(config, linears))
    require_experts("attention", unreachable_experts(config, linears))


def test_experts_that_are_linear_layers_or_not_there_are_part_of_full() -> None:
    assert unreachable_experts(decoder("llama").config, linears_of("llama")) == 0
    assert unreachable_experts(encoder_decoder("t5gemma").config, linears_of("t5gemma")) == 0
    many = AutoConfig.for_model("mixtral", **SIZES, num_local_experts=4)
    attention = "model.layers.0.self_attn.q_proj"
    assert unreachable_experts(many, ["model.layers.0.mlp.experts.0.w1", attention]) == 0
    assert unreachable_experts(many, [attention]) == 4
    one = AutoConfig.for_model("mixtral", **SIZES, num_local_experts=1)
    assert unreachable_experts(one, [attention]) == 0
    for targets in ("full", "light"):
        require_experts(targets, 0)
    require_experts(["q_proj"], 4)
