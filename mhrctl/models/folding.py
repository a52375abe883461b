"""An adapter is folded into the weights of the backbone, for evaluation: a forward then costs what the bare backbone's does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter
from mhrctl.models.layer import AdaptedLinear, AdaptedQuantised


def foldable(backbone: nn.Module, adapter: Adapter | None) -> bool:
    """Return whether an adapter can be folded into a backbone that has its layers.

    It must be one adapter for all rows of a batch: a LoRA (an inventory of one skill) or (IA)3 of one run. And the weights
    must be fp32: in bf16 the sum would lose what is smaller than 2^-9 of a weight, which can be all of an update, and in
    4 or 8 bits more. Weights that are kept on a disk, or in the memory of the CPU while a GPU computes, are not at hand.
    """
    if adapter is None or not adapter.foldable:
        return False
    layers = _layers(backbone, adapter).values()
    return all(
        layer.weight.dtype == torch.float32 and not layer.weight.is_meta and not isinstance(layer, AdaptedQuantised)
        for layer in layers
    )


@contextmanager
def folded(backbone: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Put an adapter into the weights of the layers that it adapts, until the context ends.

    A LoRA turns a layer's W, [d_out, d_in] however it is stored, into W + (alpha / r) (A B)^T; (IA)3 multiplies the rows of
    W, and the bias. Layers get new tensors, and in the end those that they had, bit for bit, also after an exception; what
    shares a layer's tensor, such as the embedding of a tied output layer, is not touched. So the context takes the memory of
    the adapted layers' weights once more. It is not for training: dropout of the updates' inputs has no part.

    Args:
        backbone: a model with the adapter's layers; it must not have the adapter attached besides.
        adapter: what to fold.

    Raises:
        ValueError: if the adapter is not `foldable`.
    """
    if not foldable(backbone, adapter):
        raise ValueError(f"this adapter ({adapter.kind}, runs: {adapter.runs}) cannot be folded into these weights")
    slots = adapter()
    layers = _layers(backbone, adapter)
    unfolded = {name: (layer.weight, layer.bias) for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            with torch.no_grad():
                weight, bias = adapter.fold(name, layer.matrix, layer.bias, slots)
            layer.weight = _frozen(weight.t().contiguous() if layer.transposed else weight)
            layer.bias = None if bias is None else _frozen(bias)  # type: ignore[assignment]
        yield
    finally:
        for name, layer in layers.items():
            layer.weight, layer.bias = unfolded[name]


def _layers(backbone: nn.Module, adapter: Adapter) -> dict[str, AdaptedLinear]:
    return {name: cast("AdaptedLinear", backbone.get_submodule(name)) for name in adapter.shapes}


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
