"""An adapter folded into the weights of the backbone, for evaluation: a forward then costs what the bare backbone's does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.models.layer import AdaptedLinear


def foldable(backbone: nn.Module, adapter: Adapter | None) -> bool:
    """Whether an adapter can be folded into a backbone that has its layers.

    It must be one for all rows of a batch: a LoRA (an inventory of one skill) or (IA)3 of one run. And the weights must be
    fp32: in bf16 the sum would lose what is smaller than 2^-9 of a weight, which can be all of an update.
    """
    if not isinstance(adapter, Inventory | Scales) or adapter.runs > 1:
        return False
    if isinstance(adapter, Inventory) and adapter.skills > 1:
        return False
    return all(layer.weight.dtype == torch.float32 for layer in _layers(backbone, adapter).values())


@contextmanager
def folded(backbone: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Put an adapter into the weights of the layers that it adapts, until the context ends.

    A LoRA turns a layer's W into W + (alpha / r) (A B)^T, in the layout [d_out, d_in]; (IA)3 multiplies the rows of W, and
    the bias. Layers get new tensors, and in the end those that they had, bit for bit, also after an exception; what shares a
    layer's tensor, such as the embedding of a tied output layer, is not touched. So the context takes the memory of the
    adapted layers' weights once more. It is not for training: dropout of the updates' inputs has no part in it.

    Args:
        backbone: a model with the adapter's layers; the adapter must not be called with it besides.
        adapter: what to fold.

    Raises:
        ValueError: if the adapter is not `foldable`.
    """
    if not foldable(backbone, adapter):
        raise ValueError(f"this adapter ({adapter.kind}, runs: {adapter.runs}) cannot be folded into these weights")
    slots = adapter()
    layers = _layers(backbone, adapter)
    before = {name: (layer.weight, layer.bias) for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            _fold(layer, name, slots)
        yield
    finally:
        for name, layer in layers.items():
            layer.weight, layer.bias = before[name]


def _layers(backbone: nn.Module, adapter: Adapter) -> dict[str, AdaptedLinear]:
    return {name: cast("AdaptedLinear", backbone.get_submodule(name)) for name in adapter.shapes}


@torch.no_grad()
def _fold(layer: AdaptedLinear, name: str, slots: Mapping[str, Tensor]) -> None:
    """Give a layer the weights that do by themselves what those before did with the slots of its name."""
    weight, bias = layer.weight, layer.bias

    def slot(kind: str) -> Tensor:
        return slots[f"{name}.{kind}"][0].to(weight.device)

    if f"{name}.scale" in slots:
        layer.weight = _frozen(weight * slot("scale")[:, None])
        layer.bias = None if bias is None else _frozen(bias * slot("scale"))
    else:
        layer.weight = _frozen(torch.addmm(weight, slot("up").T, slot("down")))


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
