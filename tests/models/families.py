"""Tiny random models of many families, and what transformers makes of one sequence with weights that are changed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

VOCABULARY = 97
PAD, END = 0, 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": END,
}
ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
WINDOW: dict[str, Any] = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA = WINDOW | {"query_pre_attn_scalar": 16}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": GEMMA | {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 3.0},
    "gemma3_text": GEMMA,
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "olmo2": {},
    "smollm3": {},
    "granite": {"logits_scaling": 2.0, "attention_multiplier": 0.3},
    "starcoder2": {"sliding_window": 6},
    "cohere2": WINDOW | {"logit_scale": 2.0},
    "gpt_bigcode": {"head_dim": None, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2},
    "olmo3": WINDOW,
    "exaone4": WINDOW,
    "glm4": {},
    "gemma3n_text": GEMMA
    | {
        "num_hidden_layers": 4,
        "layer_types": WINDOW["layer_types"] * 2,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": None,
    },
    "deepseek_v3": {
        "head_dim": None,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 16,
        "n_group": 2,
        "topk_group": 1,
    },
}
"""{family: its settings besides `SIZES`} of models whose sequences can be packed."""
UNPACKED: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"head_dim": None, "alibi": False, "new_decoder_architecture": True},
    "gpt_oss": WINDOW | {"num_local_experts": 3, "num_experts_per_tok": 2, "rope_parameters": ROTARY},
    "stablelm": {"partial_rotary_factor": 0.5},
    "gptj": {"head_dim": None, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 128},
    "lfm2": {"head_dim": None, "layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": DELTA,
    "qwen3_next": DELTA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "nemotron": {},
    "mamba2": {
        "num_attention_heads": None,
        "num_key_value_heads": None,
        "num_heads": 8,
        "state_size": 8,
        "n_groups": 1,
        "expand": 2,
    },
}
"""The same of those that must be padded."""


@cache
def decoder(kind: str) -> PreTrainedModel:
    """A frozen decoder-only model of a family, which nobody changes: copy it."""
    settings = {name: value for name, value in {**SIZES, **{**DECODERS, **UNPACKED}[kind]}.items() if value is not None}
    config = AutoConfig.for_model(kind, **settings)
    return randomised(kind, AutoModelForCausalLM.from_config(config))


def randomised(kind: str, model: PreTrainedModel) -> PreTrainedModel:
    """Give a model weights of which every one counts, the same at each call."""
    generator = torch.Generator().manual_seed(sum(map(ord, kind)))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.05)
    return model.eval().requires_grad_(False)


def changed_weights(plain: PreTrainedModel, slots: Mapping[str, Tensor], group: int) -> dict[str, Tensor]:
    """The weights and biases of a model in which the adapters of a group of slots are, as the formulas say; gradients pass."""
    weights: dict[str, Tensor] = {}
    for name in {slot.rpartition(".")[0] for slot in slots}:
        layer: Any = plain.get_submodule(name)
        if f"{name}.scale" in slots:
            scale = slots[f"{name}.scale"][group]
            weights[f"{name}.weight"] = layer.weight * (scale if isinstance(layer, Conv1D) else scale[:, None])
            if layer.bias is not None:
                weights[f"{name}.bias"] = layer.bias * scale
        else:
            update = slots[f"{name}.up"][group].T @ slots[f"{name}.down"][group]  # [d_out, d_in]
            weights[f"{name}.weight"] = layer.weight + (update.T if isinstance(layer, Conv1D) else update)
    return weights


def merged(plain: PreTrainedModel, slots: Mapping[str, Tensor], group: int) -> Any:
    """A copy of a model with the adapters of a group in its weights."""
    model: Any = deepcopy(plain)
    model.load_state_dict(changed_weights(plain, slots, group), strict=False)
    return model


def decoder_logits(
    plain: PreTrainedModel, weights: Mapping[str, Tensor], source: Sequence[int], target: Sequence[int]
) -> Tensor:
    """The logits from which each token of a target is predicted, of a whole sequence alone, [target, vocabulary]."""
    ids = torch.tensor([[*source, *target]])
    rows = {"input_ids": ids, "use_cache": False}
    logits: Tensor = functional_call(plain, dict(weights), kwargs=rows, tie_weights=False).logits[0]
    return logits[len(source) - 1 : -1]


_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
_GEMMA = SIZES | DECODERS["gemma2"]
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "longt5": _T5 | {"local_radius": 4},
    "bart": _BART | {"bos_token_id": 1, "forced_eos_token_id": None},
    "mbart": _BART | {"forced_eos_token_id": None},
    "pegasus": _BART | {"forced_eos_token_id": None},
    "t5gemma": {"encoder": _GEMMA | {"is_encoder_decoder": False}, "decoder": _GEMMA},
}
"""{family: its settings} of encoder-decoders."""


@cache
def encoder_decoder(kind: str) -> PreTrainedModel:
    """A frozen encoder-decoder of a family, which nobody changes: copy it."""
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, **ENCODER_DECODERS[kind])
    model = randomised(kind, AutoModelForSeq2SeqLM.from_config(config))
    for where in (model.config, model.generation_config):
        where.pad_token_id, where.eos_token_id = PAD, END
        where.decoder_start_token_id = 1 if kind == "t5gemma" else PAD  # T5Gemma masks padding, be it the start or not
    return model


def encoder_decoder_logits(
    plain: PreTrainedModel, weights: Mapping[str, Tensor], source: Sequence[int], target: Sequence[int]
) -> Tensor:
    """The logits from which each token of a target is predicted, of one input alone, [target, vocabulary]."""
    shifted = torch.tensor([[plain.config.decoder_start_token_id, *target[:-1]]])
    rows = {"input_ids": torch.tensor([source]), "decoder_input_ids": shifted, "use_cache": False}
    logits: Tensor = functional_call(plain, dict(weights), kwargs=rows, tie_weights=False).logits[0]
    return logits
