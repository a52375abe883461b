"""Granularities of the router say which adapted layers share a routing, as in the paper's Figure 4."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mhrctl.errors import ParamsError, unknown

_BLOCK = re.compile(r"(?P<list>(?P<coder>.*?)\.?[^.]+)\.(?P<number>\d+)(\.|$)")
MODEL = "model"
CODERS = ("encoder", "decoder")
"""The halves of an encoder-decoder, which the names of its parts have in them."""
_OF_ENCODER_DECODERS = re.compile(r"(^|\.)encoder(\.|$)|^decoder(\.|$)|EncDecAttention|encoder_attn|cross_?attn", re.IGNORECASE)
"""What tells an encoder-decoder's names: `decoder` alone does not, since OPT, which has no encoder, has `model.decoder`."""

NO_CODERS = "granularity coder: this backbone has no encoder and decoder; use layer, sublayer, block or model"


def require_coders(granularity: str, linears: Sequence[str]) -> None:
    """Check that a model has the parts that are to share a routing.

    Args:
        granularity: see `routing_parts`.
        linears: names of all linear layers of the model, adapted or not: some of a decoder's do not tell whose it is.

    Raises:
        ParamsError: if the encoder and the decoder are to have one each, and the model is no encoder-decoder.
    """
    if granularity == "coder" and not by_coder(linears):
        raise ParamsError(NO_CODERS)


def by_coder(parts: Sequence[str]) -> dict[str, list[str]]:
    """Sort the parts of a model into those of its encoder and those of its decoder.

    Args:
        parts: names of layers, or of what has several of them.

    Returns:
        {coder: its parts}, without a coder that has none; nothing for a model that is no encoder-decoder.
    """
    if not any(_OF_ENCODER_DECODERS.search(part) for part in parts):
        return {}
    sorted_parts = {coder: [part for part in parts if coder in part.split(".")] for coder in CODERS}
    return {coder: its_parts for coder, its_parts in sorted_parts.items() if its_parts}


def routing_parts(layers: Sequence[str], granularity: str, blocks: int = 1) -> dict[str, str]:
    """Name the routing of every layer.

    Args:
        layers: names of the adapted layers, such as `encoder.block.0.layer.0.SelfAttention.q`.
        granularity: `layer` (each its own), `sublayer` (the layers of one attention or feed-forward), `block` (of one
            transformer block, or of `blocks` successive ones), `coder` (of the encoder, of the decoder), or `model`.
            A block is what has the first number in a name, and a sub-layer what has the layer itself: `fc1` and `fc2` that
            are in no module of their own are the sub-layer with the name of their block.
        blocks: with `block`, how many successive blocks share.

    Returns:
        {layer: name of its routing}, a name being the part of the model that shares it.

    Raises:
        ParamsError: if a layer's name shows no block, or the model that it is of no encoder and decoder.
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
    coder: str = _match(layer)["coder"]
    if set(CODERS).isdisjoint(coder.split(".")):
        raise ParamsError(NO_CODERS)
    return coder


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
