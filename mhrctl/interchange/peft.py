"""Adapters are read and written as peft saves them: a folder with adapter_config.json and adapter_model.safetensors.

LORA   base_model.model.<layer>.lora_A.weight  [rank, d_in],  <layer>.lora_B.weight  [d_out, rank]
IA3    base_model.model.<layer>.ia3_l          [d_out, 1], or [1, d_in] where it scales the input
POLY   base_model.model.<layer>.poly_lora_A    [heads, skills, d_in / heads, rank],
       <layer>.poly_lora_B                     [heads, skills, rank, d_out / heads],
       <layer>.poly_router.module_logits       [tasks, heads * skills]
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from mhrctl.adapters.finite import require_finite
from mhrctl.errors import ArtifactError, DataError, unknown
from mhrctl.interchange.weights import (
    LayerSkills,
    ScaleWeights,
    Shapes,
    SkillWeights,
    as_numbers,
    load_tensors,
    no_such_layer,
    read_alpha,
    refused,
    skill_weights,
)

CONFIG = "adapter_config.json"
TENSORS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_LORA = ("lora_A.weight", "lora_B.weight")
_POLY = ("poly_lora_A", "poly_lora_B", "poly_router.module_logits")

_CHANGES_THE_FUNCTION = (
    "modules_to_save",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "megatron_config",
)
"""These settings add weights or make the update another one than (alpha / rank) * (x A) B; so do all `use_...` but rsLoRA."""

_CHANGES_THE_BACKBONE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""These initialisations subtract something from the frozen weights, which the adapter then presupposes."""

TaskType = Literal["SEQ_2_SEQ_LM", "CAUSAL_LM"]
"""Of a backbone: an encoder-decoder, or a causal model."""

_GATED = {"wo": ("wi_1", "wi_0"), "down_proj": ("up_proj", "gate_proj")}
"""{last name of the layer that narrows in a feed-forward: those of the sibling that it takes as it is, and of the gate}."""

_ByLayer = dict[str, dict[str, Tensor]]


def write_peft(
    folder: Path,
    weights: SkillWeights | ScaleWeights,
    *,
    base: str,
    revision: str | None,
    task_type: TaskType = "SEQ_2_SEQ_LM",
    transposed: bool = False,
    dropout: float = 0.0,
    inference: bool = True,
) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained(model, folder)` reads.

    One skill of one head without routing becomes a LORA, everything else with skills a POLY; peft's Poly scales by 1 / rank,
    so there alpha goes into B, and skills without routing get equal logits for one task.

    Args:
        folder: made if need be.
        weights: what to write.
        base: the backbone's name on the hub, or its folder.
        revision: of the backbone.
        task_type: of the backbone, in peft's words.
        transposed: whether the adapted layers keep their weights as [d_in, d_out], as those of GPT-2 do.
        dropout: that the LORA goes on training with; Poly and IA3 have none.
        inference: load it frozen.

    Raises:
        DataError: if peft is not installed, or has no such adapter of transposed layers.
        ArtifactError: if one of the numbers is not finite.
    """
    peft = _library()
    config_class, settings, tensors = _as_peft(weights)
    if transposed and config_class == "PolyConfig":
        raise DataError(
            "peft's Poly adapts no layers with transposed weights (Conv1D, as in GPT-2); what is mixed leaves as LoRA"
        )
    if config_class == "LoraConfig":
        settings["lora_dropout"] = dropout
    if transposed:
        settings["fan_in_fan_out"] = True
    config = getattr(peft, config_class)(
        **settings,
        base_model_name_or_path=base,
        revision=revision,
        task_type=peft.TaskType(task_type),
        inference_mode=inference,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written["target_modules"] = settings["target_modules"]  # peft keeps a set, whose order differs from process to process
    (folder / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    named = {
        _PREFIX + key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
    }
    require_finite(named, f"{TENSORS}, which was to be written", error=ArtifactError, how="train the adapter again")
    save_file(named, folder / TENSORS, {"format": "pt"})


def _library() -> ModuleType:
    try:
        import peft
    except ImportError:
        raise DataError("writing an adapter for peft needs the package peft (pip install peft)") from None
    library: ModuleType = peft
    return library


def _as_peft(weights: SkillWeights | ScaleWeights) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Say it in peft's words: the name of its config class, its settings, and the tensors without its prefix."""
    if isinstance(weights, ScaleWeights):
        tensors = {f"{name}.ia3_l": scale[:, None] for name, scale in weights.scales.items()}
        return "IA3Config", {"target_modules": list(weights.scales), "feedforward_modules": []}, tensors
    settings: dict[str, Any] = {"target_modules": list(weights.layers), "r": weights.rank}
    if weights.heads * weights.skills > 1 or any(layer.routing is not None for layer in weights.layers.values()):
        tensors = _poly_tensors(weights)
        tasks = next(len(tensor) for key, tensor in tensors.items() if key.endswith(_POLY[2]))
        return "PolyConfig", {**settings, "n_tasks": tasks, "n_skills": weights.skills, "n_splits": weights.heads}, tensors
    tensors = {}
    for name, layer in weights.layers.items():
        tensors[f"{name}.{_LORA[0]}"], tensors[f"{name}.{_LORA[1]}"] = layer.lora_A[0, 0].T, layer.lora_B[0, 0].T
    alpha = int(weights.alpha) if float(weights.alpha).is_integer() else weights.alpha
    return "LoraConfig", {**settings, "lora_alpha": alpha}, tensors


def _poly_tensors(weights: SkillWeights) -> dict[str, Tensor]:
    tasks = {1 if layer.routing is None else len(layer.routing) for layer in weights.layers.values()}
    if len(tasks) > 1:
        raise ValueError(f"layers are routed for different numbers of tasks: {sorted(tasks)}")
    equal = torch.zeros(*tasks, weights.heads, weights.skills)
    tensors: dict[str, Tensor] = {}
    for name, layer in weights.layers.items():
        routing = equal if layer.routing is None else layer.routing
        values = (layer.lora_A, layer.lora_B * weights.alpha, routing.flatten(1))
        tensors.update({f"{name}.{suffix}": tensor for suffix, tensor in zip(_POLY, values, strict=True)})
    return tensors


def read_peft(folder: Path, shapes: Shapes) -> SkillWeights | ScaleWeights:
    """Read a folder that peft's `save_pretrained` wrote.

    Args:
        folder: with adapter_config.json, and adapter_model.safetensors or .bin.
        shapes: {layer name: (d_in, d_out)} of all linear layers of the backbone.

    Returns:
        Its weights as fp32. A scale of the input of `wo` or `down_proj` in a gated feed-forward becomes one of the sibling
        `wi_1` or `up_proj`, which is the same function.

    Raises:
        DataError: if the folder holds another kind of adapter, or anything that these weights cannot express.
    """
    settings = _settings(folder / CONFIG)
    kind = settings.get("peft_type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise DataError(f"{folder / CONFIG}: {unknown('peft_type', str(kind), _READERS)}")
    _refuse_settings(folder / CONFIG, settings)
    file = folder / (TENSORS if (folder / TENSORS).is_file() or not (folder / PICKLE).is_file() else PICKLE)
    content = load_tensors(file)
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise DataError(f"{file}: not a flat dictionary of tensors")
    suffixes, reader = _READERS[kind]
    return reader(file, _by_layer(file, content, suffixes, shapes), settings, shapes)


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{file}: no such file; peft writes it beside the weights") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise DataError(f"{file}: not a JSON object")
    return settings


def _refuse_settings(file: Path, settings: Mapping[str, Any]) -> None:
    extra = [key for key in settings if key.startswith("use_") and key != "use_rslora"]
    if foreign := [key for key in (*_CHANGES_THE_FUNCTION, *extra) if settings.get(key)]:
        raise refused(file, foreign, "set here, and mhrctl's adapters have no counterpart")
    if settings.get("bias", "none") != "none":
        raise DataError(f"{file}: bias: {settings['bias']!r} trains biases of the backbone; only 'none' is read")
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(_CHANGES_THE_BACKBONE):
        raise DataError(
            f"{file}: init_lora_weights: {init!r} changed the backbone's own weights; save the adapter with peft's"
            " path_initial_model_for_weight_conversion"
        )
    for pattern, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        values = settings.get(pattern) or {}
        if isinstance(values, dict) and (other := [key for key, value in values.items() if value != settings.get(default)]):
            raise refused(file, other, f"{pattern} differs from {default}; only one for all layers is read")
    if settings.get("poly_type", "poly") != "poly":
        raise DataError(f"{file}: poly_type: {settings['poly_type']!r} is unknown (known: poly)")


def _by_layer(file: Path, tensors: Mapping[str, Tensor], suffixes: tuple[str, ...], shapes: Shapes) -> _ByLayer:
    """Group tensors by layer, in the backbone's order, and suffix, as fp32; each layer must have all suffixes."""
    by_layer: dict[str, dict[str, str]] = {}
    foreign: list[str] = []
    for key in tensors:
        suffix = next((suffix for suffix in suffixes if key.endswith(f".{suffix}")), None)
        if suffix is None:
            foreign.append(key)
        else:
            layer = key.removeprefix(_PREFIX).removesuffix(f".{suffix}")
            by_layer.setdefault(layer, {})[suffix] = key
    if foreign:
        raise refused(file, foreign, f"no part of such an adapter (a layer has: {', '.join(suffixes)})")
    if not by_layer:
        raise DataError(f"{file}: holds no tensors")
    if strangers := [layer for layer in by_layer if layer not in shapes]:
        raise no_such_layer(file, strangers, shapes)
    if broken := [f"{layer}.{suffix}" for layer, present in by_layer.items() for suffix in suffixes if suffix not in present]:
        raise refused(file, broken, "missing")
    numbers = as_numbers(file, tensors)
    return {layer: {suffix: numbers[key] for suffix, key in by_layer[layer].items()} for layer in shapes if layer in by_layer}


def _lora(file: Path, by_layer: _ByLayer, settings: Mapping[str, Any], shapes: Shapes) -> SkillWeights:
    rank, alpha = _whole(file, settings, "r"), read_alpha(file.parent / CONFIG, settings.get("lora_alpha"))
    _check(file, by_layer, {n: {_LORA[0]: (rank, d_in), _LORA[1]: (d_out, rank)} for n, (d_in, d_out) in shapes.items()})
    layers = {
        name: LayerSkills(*(pair[suffix].T.contiguous()[None, None] for suffix in _LORA)) for name, pair in by_layer.items()
    }
    return skill_weights(file, alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha, layers)


def _poly(file: Path, by_layer: _ByLayer, settings: Mapping[str, Any], shapes: Shapes) -> SkillWeights:
    rank, tasks, skills, heads = (_whole(file, settings, key) for key in ("r", "n_tasks", "n_skills", "n_splits"))
    expected: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, (d_in, d_out) in shapes.items():
        sizes = ((heads, skills, d_in // heads, rank), (heads, skills, rank, d_out // heads), (tasks, heads * skills))
        expected[name] = dict(zip(_POLY, sizes, strict=True))
    _check(file, by_layer, expected)
    if uneven := [name for name in by_layer if any(width % heads for width in shapes[name])]:
        raise refused(file, uneven, f"{heads} heads do not divide the layer's widths")
    layers = {
        name: LayerSkills(tensors[_POLY[0]], tensors[_POLY[1]], tensors[_POLY[2]].unflatten(-1, (heads, skills)))
        for name, tensors in by_layer.items()
    }
    return skill_weights(file, 1.0, layers)


def _ia3(file: Path, by_layer: _ByLayer, _settings: Mapping[str, Any], shapes: Shapes) -> ScaleWeights:
    scales: dict[str, Tensor] = {}
    for name, tensors in by_layer.items():
        (vector,) = tensors.values()
        d_in, d_out = shapes[name]
        target = name
        if vector.shape != (d_out, 1):
            target = _gated_sibling(name, shapes)  # wo(gelu(wi_0 x) * wi_1 x): a scale of its input is one of wi_1's output
            if vector.shape != (1, d_in):
                raise refused(file, [f"{name}.ia3_l"], f"has shape {list(vector.shape)} and not {[d_out, 1]} or {[1, d_in]}")
            if shapes.get(target, (0, 0))[1] != d_in:
                raise refused(
                    file,
                    [f"{name}.ia3_l"],
                    "scales the layer's input, and no sibling wi_1 or up_proj has an output that is this input",
                )
        scales[target] = scales[target] * vector.flatten() if target in scales else vector.flatten()
    return ScaleWeights(scales)


def _gated_sibling(name: str, shapes: Shapes) -> str:
    """The layer beside this one whose output, times that of the gate, is its input; an empty name if there is none."""
    parent, _, last = name.rpartition(".")
    if last not in _GATED:
        return ""
    sibling, gate = (f"{parent}.{each}" for each in _GATED[last])
    return sibling if gate in shapes else ""


def _whole(file: Path, settings: Mapping[str, Any], key: str) -> int:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{file.parent / CONFIG}: {key}: {value!r} is no positive whole number")
    return value


def _check(file: Path, by_layer: _ByLayer, expected: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    for layer, tensors in by_layer.items():
        for suffix, tensor in tensors.items():
            if tuple(tensor.shape) != expected[layer][suffix]:
                size = list(expected[layer][suffix])
                raise refused(file, [f"{layer}.{suffix}"], f"has shape {list(tensor.shape)} and not {size}, as {CONFIG} has it")


_Reader = Callable[[Path, _ByLayer, Mapping[str, Any], Shapes], SkillWeights | ScaleWeights]
_READERS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "LORA": (_LORA, _lora),
    "IA3": (("ia3_l",), _ia3),
    "POLY": (_POLY, _poly),
}
