"""Servers of language models load PEFT folders of one form: a plain LoRA. What vLLM and SGLang read and reject is known here.

It was read in vLLM 0.33 (`vllm/lora/peft_helper.py`, `lora_model.py`, `utils.py`, `config/lora.py`) and in SGLang 0.5.23
(`sglang/srt/lora/lora_config.py`, `lora.py`, `utils.py`, `lora_manager.py`); `docs/serving.md` says what each demands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mhrctl.errors import DataError, listed
from mhrctl.interchange.peft import CONFIG, TENSORS
from mhrctl.interchange.weights import LayerSkills, Shapes, SkillWeights

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `--max-lora-rank`."""
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that servers keep as one matrix: SGLang wants the LoRA of all of them, or of none; it makes up `k_proj` itself."""
_TENSOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_DEMANDED: Mapping[str, type | tuple[type, ...]] = {
    "r": int,
    "lora_alpha": (int, float),
    "target_modules": list,
    "base_model_name_or_path": str,
}
"""{key: its type}: vLLM and SGLang read these, and the second guesses no layers from an expression."""
_REJECTED = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
    "trainable_token_indices",
    "target_parameters",
)
"""Keys that make the update another one: vLLM rejects such an adapter, or passes over what the key means."""
_UNEVEN = ("rank_pattern", "alpha_pattern", "use_rslora")
"""Keys that vLLM heeds and SGLang passes over, which scales every layer by alpha / r."""


def max_lora_rank(rank: int) -> int:
    """Return what `--max-lora-rank` of vLLM must be for adapters of a rank.

    Raises:
        DataError: if none is enough.
    """
    for most in RANKS:
        if rank <= most:
            return most
    raise DataError(f"rank {rank}: vLLM serves LoRAs of a rank up to {RANKS[-1]}; export --merge")


def with_siblings(weights: SkillWeights, shapes: Shapes) -> SkillWeights:
    """Return a LoRA with zeros for layers that servers keep in one matrix with adapted ones: the same function.

    Args:
        weights: of one skill and head.
        shapes: {layer: (d_in, d_out)} of the backbone.
    """
    layers = dict(weights.layers)
    for name in weights.layers:
        parent, _, last = name.rpartition(".")
        for group in SIBLINGS:
            for sibling in group if last in group else ():
                other = f"{parent}.{sibling}"
                if other in shapes and other not in layers:
                    layers[other] = _zeros(weights.rank, *shapes[other])
    ordered = {name: layers[name] for name in shapes if name in layers}
    return SkillWeights(**{**vars(weights), "layers": ordered})


def _zeros(rank: int, d_in: int, d_out: int) -> LayerSkills:
    return LayerSkills(torch.zeros(1, 1, d_in, rank), torch.zeros(1, 1, rank, d_out))


def require_servable(folder: Path) -> None:
    """Check that vLLM and SGLang load a PEFT folder, and take it for what it is.

    Raises:
        DataError: if one of them would not; says which key or tensor.
    """
    file = folder / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    if reason := _unsupported_settings(settings):
        raise DataError(f"{file}: {reason}, and vLLM and SGLang serve plain LoRA alone")
    try:
        with safe_open(folder / TENSORS, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no mapping
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / TENSORS}: cannot be read ({error}); servers read no other file") from None
    if reason := _unsupported_tensors(shapes, settings["r"]):
        raise DataError(f"{folder / TENSORS}: {reason}")


def _unsupported_settings(settings: Mapping[str, Any]) -> str | None:
    """What a server does not take in a config; None if it takes all."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        return f"peft_type {kind!r} is none"
    for key, expected in _DEMANDED.items():
        if not isinstance(settings.get(key), expected) or isinstance(settings[key], bool):
            return f"{key} {settings.get(key)!r} is none that they read"
    if settings.get("bias", "none") != "none":
        return f"bias {settings['bias']!r} trains biases"
    if settings.get("init_lora_weights") not in (None, True, False, "gaussian"):
        return f"init_lora_weights {settings['init_lora_weights']!r} may have changed the backbone's weights"
    if present := [key for key in (*_REJECTED, *_UNEVEN) if settings.get(key)]:
        return f"{listed(present)} {'is' if len(present) == 1 else 'are'} set"
    return None


def _unsupported_tensors(shapes: Mapping[str, tuple[int, ...]], rank: int) -> str | None:
    """What a server does not take in the tensors; None if it takes all."""
    layers: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            return f"{name} is no tensor of a LoRA of a linear layer"
        if len(shape) != 2 or shape["AB".index(match["side"])] != rank:
            return f"{name} has shape {list(shape)}, which is of no rank {rank}"
        layers.setdefault(match["layer"], set()).add(match["side"])
    if incomplete := [name for name, sides in layers.items() if len(sides) < 2]:
        return f"{incomplete[0]} has but one of lora_A and lora_B"
    for parent in {name.rpartition(".")[0] for name in layers if name.rpartition(".")[2] in SIBLINGS[0]}:
        if missing := [each for each in ("q_proj", "v_proj") if f"{parent}.{each}" not in layers]:
            return f"{parent}.{missing[0]} is not adapted and a layer beside it is, which SGLang cannot put into one matrix"
    return None
