"""Granularities of the router say which adapted layers share a routing, as in the paper's Figure 4."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mhrctl.errors import ParamsError, unknown

_BLOCK = re.compile(r"(?P<list>(?P<coder>.*?)\.?[^.]+)\.(?P<number>\d+)(\.|$)")
MODEL = "model"


def routing_parts(layers: Sequence[str], granularity: str, blocks: int = 1) -> dict[str, str]:
    """Name the routing of every layer.

    Args:
        layers: names of the adapted layers, such as `encoder.block.0.layer.0.SelfAttention.q`.
        granularity: `layer` (each its own), `sublayer` (the layers of one attention or feed-forward), `block` (of one
            transformer block, or of `blocks` successive ones), `coder` (of the encoder, of the decoder), or `model`.
        blocks: with `block`, how many successive blocks share.

    Returns:
        {layer: name of its routing}, a name being the part of the model that shares it.

    Raises:
        ParamsError: if a layer's name shows no block.
    """
    if granularity not in GRANULARITIES:
        raise ParamsError(f"granularity: {unknown('granularity', granularity, GRANULARITIES)}")
    return {layer: GRANULARITIES[granularity](layer, blocks) for layer in layers}


def _sublayer(layer: str, _blocks: int) -> str:
    return layer.rpartition(".")[0] or MODEL


def _block(layer: str, blocks: int) -> str:
    match = _match(layer)
    first = int(match["number"]) // blocks * blocks
    return f"{match['list']}.{first}" if blocks == 1 else f"{match['list']}.{first}-{first + blocks - 1}"


def _coder(layer: str, _blocks: int) -> str:
    return _match(layer)["coder"] or MODEL


def _match(layer: str) -> re.Match[str]:
    match = _BLOCK.match(layer)
    if match is None:
        raise ParamsError(f"granularity: layer {layer} is in no numbered block; use layer, sublayer or model")
    return match


GRANULARITIES: dict[str, Callable[[str, int], str]] = {
    "layer": lambda layer, _blocks: layer,
    "sublayer": _sublayer,
    "block": _block,
    "coder": _coder,
    "model": lambda _layer, _blocks: MODEL,
}
