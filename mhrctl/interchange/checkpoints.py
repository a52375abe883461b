"""Adapters are read from single files: those of T-Few and of microsoft/mttl, where the paper's checkpoints come from.

A file is a state dict, or a Lightning checkpoint with one. The names of the layers may have a prefix, such as `model.`:

    <layer>.down, <layer>.up         LoRA: [d_in, rank], [rank, d_out], or both transposed, as mttl once had them
    <layer>.down, <layer>.up         routed: [heads, skills, d_in / heads, rank], [heads, skills, rank, d_out / heads], or
                                           in later versions [skills, heads, d_in / heads, rank], [skills, rank, heads, ...]
    <layer>.selector.module_logits         [tasks, heads * skills]
    <layer>.multi_lora_b                   (IA)3: [d_out] or [d_out, 1]
    <layer>.multi_lora_a                   T-Few's scale of the input, which must be one everywhere
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mhrctl.errors import DataError
from mhrctl.interchange.peft import CONFIG, read_peft
from mhrctl.interchange.weights import (
    LayerSkills,
    ScaleWeights,
    Shapes,
    SkillWeights,
    as_numbers,
    load_tensors,
    read_alpha,
    refused,
    skill_weights,
)

_A, _B, _Z = "down", "up", "selector.module_logits"
_IN, _OUT = "multi_lora_a", "multi_lora_b"
_SUFFIXES = (_A, _B, _Z, _IN, _OUT)
_FROZEN = re.compile(r"(^|\.)([^.]*norm|shared|embed_(tokens|positions)|relative_attention_bias)\.(weight|bias)$")
"""These names are of embeddings and norms."""

_OTHER_ROUTING = (
    "module_logits_l2_norm",
    "module_logits_straight_through",
    "poly_average_correction",
    "poly_use_shared_skill",
)
"""With any of these settings of mttl its routing is not sigmoid(Z) / sum sigmoid(Z)."""

_ByLayer = dict[str, dict[str, Tensor]]


def read_any(path: Path, shapes: Shapes) -> SkillWeights | ScaleWeights:
    """Read an adapter of another library, whichever it is.

    Args:
        path: a folder of peft's, or a file that `read_checkpoint` reads.
        shapes: {layer name: (d_in, d_out)} of all linear layers of the backbone.

    Returns:
        Its weights as fp32.

    Raises:
        DataError: if it is neither, or holds anything that these weights cannot express.
    """
    if (path / CONFIG).is_file():
        return read_peft(path, shapes)
    if path.is_file():
        return read_checkpoint(path, shapes)
    what = f"a folder without {CONFIG}" if path.is_dir() else "not there"
    raise DataError(
        f"{path}: {what}; an adapter is a folder that peft's save_pretrained wrote, or a file (.pt, .ckpt, .bin, .safetensors)"
        " of T-Few or mttl"
    )


def read_checkpoint(path: Path, shapes: Shapes) -> SkillWeights | ScaleWeights:
    """Read T-Few's (IA)3, or a LoRA, Poly, MHR or (IA)3 of mttl.

    Frozen weights of the backbone may stand in the state dict, and optimizer states beside it: they are ignored.

    Args:
        path: the file. Of a pickle only tensors and plain containers are loaded.
        shapes: {layer name: (d_in, d_out)} of all linear layers of the backbone.

    Returns:
        Its weights as fp32. alpha is the checkpoint's `lora_alpha`, or 1, mttl's value when the paper was written.

    Raises:
        DataError: if it holds no adapter, or anything that these weights cannot express.
    """
    state, settings = _contents(path)
    layers = _by_layer(path, state, shapes)
    scaled = [name for name, tensors in layers.items() if _IN in tensors or _OUT in tensors]
    if not scaled:
        return _skills(path, layers, settings, shapes)
    if mixed := [f"{name}.{key}" for name, tensors in layers.items() for key in tensors if key not in {_IN, _OUT}]:
        raise refused(path, mixed, f"an adapter is a LoRA or an (IA)3, and the file also has {scaled[0]}.{_OUT}")
    return ScaleWeights({name: _scale(path, name, tensors, shapes[name][1]) for name, tensors in layers.items()})


def _contents(path: Path) -> tuple[Mapping[Any, Any], Mapping[str, Any]]:
    """Load a file's state dict and hyper-parameters."""
    content = load_tensors(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if "state_dict" not in content:
        return content, {}
    state, settings = content["state_dict"], content.get("hyper_parameters")
    if not isinstance(state, dict):
        raise DataError(f"{path}: state_dict holds a {type(state).__name__}, not tensors by name")
    return state, settings if isinstance(settings, dict) else {}


def _by_layer(path: Path, state: Mapping[Any, Any], shapes: Shapes) -> _ByLayer:
    """Group the adapter's tensors by layer, in the backbone's order, and suffix, as fp32, and leave out the backbone's."""
    layers: dict[str, dict[str, str]] = {}
    foreign: list[str] = []
    twice: list[str] = []
    for key, tensor in state.items():
        name, suffix = _place(str(key), shapes)
        if name is None or not isinstance(tensor, Tensor):
            foreign.append(str(key))
        elif suffix in layers.get(name, {}):
            twice.append(str(key))
        elif suffix is not None:
            layers.setdefault(name, {})[suffix] = str(key)
    if foreign:
        known = ", ".join(f"<layer>.{suffix}" for suffix in _SUFFIXES)
        raise refused(path, foreign, f"neither weights of the backbone nor of an adapter on its linear layers ({known})")
    if twice:
        raise refused(path, twice, "another tensor stands for the same weight under another prefix")
    if not layers:
        raise DataError(f"{path}: holds no adapter (no <layer>.{_A} or <layer>.{_OUT})")
    named = {str(key): tensor for key, tensor in state.items()}
    numbers = as_numbers(path, {key: named[key] for keys in layers.values() for key in keys.values()})
    return {name: {suffix: numbers[key] for suffix, key in layers[name].items()} for name in shapes if name in layers}


def _place(key: str, shapes: Shapes) -> tuple[str | None, str | None]:
    """Place a tensor: layer and suffix of an adapter's, any name and None of a backbone's, None twice of others."""
    suffix = next((suffix for suffix in _SUFFIXES if key.endswith(f".{suffix}")), None)
    if suffix is None and _FROZEN.search(key):
        return key, None
    stem, _, last = key.rpartition(".") if suffix is None else (key.removesuffix(f".{suffix}"), "", "")
    if suffix is None:
        if last not in {"weight", "bias"}:
            return None, None
        stem = stem.removesuffix(".linear_layer").removesuffix(".layer")  # mttl wraps the frozen layer
    while stem and stem not in shapes:
        stem = stem.partition(".")[2]
    return stem or None, suffix


def _scale(path: Path, name: str, tensors: Mapping[str, Tensor], width: int) -> Tensor:
    """Read one layer's scale, [d_out]."""
    if _IN in tensors and not bool((tensors[_IN] == 1).all()):
        raise refused(path, [f"{name}.{_IN}"], "scales the layer's input; only scales of outputs are read")
    if _OUT not in tensors:
        raise refused(path, [f"{name}.{_OUT}"], "missing")
    if tuple(tensors[_OUT].shape) not in {(width,), (width, 1)}:
        raise refused(path, [f"{name}.{_OUT}"], f"has shape {list(tensors[_OUT].shape)}, and the layer {width} outputs")
    return tensors[_OUT].flatten()


def _skills(path: Path, layers: _ByLayer, settings: Mapping[str, Any], shapes: Shapes) -> SkillWeights:
    if broken := [f"{name}.{key}" for name, tensors in layers.items() for key in (_A, _B) if key not in tensors]:
        raise refused(path, broken, "missing")
    alpha = read_alpha(path, settings.get("lora_alpha", 1.0), name="hyper_parameters: lora_alpha")
    pairs = {name: _pair(path, name, tensors[_A], tensors[_B], shapes[name]) for name, tensors in layers.items()}
    routing = _routing(path, layers, pairs, settings)
    return skill_weights(path, alpha, {name: LayerSkills(a, b, routing.get(name)) for name, (a, b) in pairs.items()})


def _pair(path: Path, name: str, a: Tensor, b: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Read A and B of one layer, whichever way round they are.

    Returns:
        [heads, skills, d_in / heads, rank] and [heads, skills, rank, d_out / heads].
    """
    fitting: list[tuple[Tensor, Tensor]] = []
    if a.ndim == b.ndim == 2:
        candidates = [(a[None, None], b[None, None]), (a.T[None, None], b.T[None, None])]
        # Both fit only if the rank is the layer's width on both sides, where nobody adapts: the first counts then.
        fitting = [pair for pair in candidates if _fits(*pair, shape)][:1]
    elif a.ndim == b.ndim == 4:
        candidates = [(a, b), (a.transpose(0, 1), b.permute(2, 0, 1, 3))]
        fitting = [pair for pair in candidates if _fits(*pair, shape)]
    if not fitting:
        sizes = f"{list(a.shape)} and {list(b.shape)}"
        raise refused(path, [f"{name}.{_A}", f"{name}.{_B}"], f"shapes {sizes} do not fit the layer, {shape[0]} x {shape[1]}")
    down, up = fitting[0]
    if len(fitting) > 1 and a.shape[0] > 1:  # of one head and one skill both orders are the same
        raise refused(
            path,
            [f"{name}.{_A}", f"{name}.{_B}"],
            f"{a.shape[0]} heads of as many skills of that rank may be in mttl's earlier or its later order of axes",
        )
    return down.contiguous(), up.contiguous()


def _fits(a: Tensor, b: Tensor, shape: tuple[int, int]) -> bool:
    heads, skills, width, rank = a.shape
    return heads * width == shape[0] and shape[1] % heads == 0 and b.shape == (heads, skills, rank, shape[1] // heads)


def _routing(
    path: Path, layers: _ByLayer, pairs: Mapping[str, tuple[Tensor, Tensor]], settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Read each layer's logits, [tasks, heads, skills]; none for one skill, and where mttl has averaged the skills."""
    heads, skills = next(iter(pairs.values()))[0].shape[:2]
    selector = settings.get("router_selector")
    if selector == "average" or settings.get("switch_to_avg_modules"):
        return {}
    logits = {name: tensors[_Z] for name, tensors in layers.items() if _Z in tensors}
    if not logits and heads * skills == 1:
        return {}
    if selector not in (None, "", "poly"):
        raise DataError(f"{path}: hyper_parameters: router_selector: {selector!r} routes in another way than Poly and MHR do")
    if others := [key for key in _OTHER_ROUTING if settings.get(key)]:
        raise refused(path, others, "set in hyper_parameters, which makes another routing than sigmoid(Z) / sum sigmoid(Z)")
    if len(logits) == 1 and settings.get("router_granularity") == "coarsegrained":
        logits = dict.fromkeys(
            layers, next(iter(logits.values()))
        )  # Lightning saved what the layers share under the first's name
    if missing := [f"{name}.{_Z}" for name in layers if name not in logits]:
        raise refused(path, missing, f"missing, and {skills} skills need a routing")
    if wrong := [f"{name}.{_Z}" for name, z in logits.items() if z.ndim != 2 or z.shape[1] != heads * skills]:
        raise refused(path, wrong, f"not of shape [tasks, {heads} heads * {skills} skills]")
    return {name: z.unflatten(-1, (heads, skills)) for name, z in logits.items()}
