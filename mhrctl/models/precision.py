"""The frozen backbone is computed with in fp32 or bf16."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from mhrctl.models.backbones import PRECISIONS
from mhrctl.models.layer import is_quantised_layer

ANGLES = "inv_freq"
"""The end of the names of buffers that positions are multiplied by: they stay in fp32, as in a model that is loaded in bf16."""


def set_precision(model: PreTrainedModel, precision: str) -> None:
    """Make a model in fp32 compute in a precision, in place; quantised weights stay what they are.

    Args:
        model: with or without slots of adapters.
        precision: of `PRECISIONS`.
    """
    dtype = PRECISIONS[precision]
    for module in model.modules():
        quantised = is_quantised_layer(module)
        if quantised:
            _set_products(module, dtype)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if tensor.is_floating_point() and not name.endswith(ANGLES) and not (quantised and name == "weight"):
                tensor.data = tensor.data.to(dtype)


def _set_products(layer: nn.Module, dtype: torch.dtype) -> None:
    """Make a quantised layer of bitsandbytes multiply in a type; other layers take that of what they are given."""
    if hasattr(layer, "compute_dtype"):
        layer.compute_dtype, layer.compute_type_is_set = dtype, True  # type: ignore[assignment]
        layer.weight.quant_state.dtype = dtype  # type: ignore[union-attr]
