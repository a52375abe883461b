"""Sequences that lie one after the other in one row of tokens attend each to itself alone, in unmodified transformers models.

Transformers hands the ends of the sequences to attention functions as `cu_seq_lens_q`, the keyword of flash attention's kernel
for unequal lengths. The function of our own that is registered here reads the same keyword and runs torch's attention for each
sequence, so that no mask over all tokens is ever made, whatever the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

NAME = "mhrctl_packed"
"""Of the attention function, in transformers' table of them."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001 - transformers gives it
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Let every token attend to those before it in its sequence.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, width].
        key: [1, key-value heads, tokens, width].
        value: likewise.
        attention_mask: is not read.
        dropout: of the weights, while training.
        scaling: of the products; None is one over the root of the width.
        sliding_window: tokens that a token looks back at, itself among them; None is all.
        softcap: the bound that products are squeezed below by a tanh (Gemma 2); None is none.
        cu_seq_lens_q: the ends of the sequences, [sequences + 1], the first 0.

    Returns:
        [1, tokens, heads, width], and no weights.

    Raises:
        ValueError: if nobody says where sequences end, or the layer has attention sinks, of which this function knows nothing.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention is not told where sequences end")
    if getattr(module, "sinks", None) is not None:
        raise ValueError("packed attention has no sinks")
    sizes = cu_seq_lens_q.diff().tolist()
    shared = query.shape[1] != key.shape[1]
    parts = zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    outputs = []
    for q, k, v in parts:
        window = sliding_window if sliding_window and q.shape[2] > sliding_window else None
        if softcap is not None:
            outputs.append(_softcapped(q, k, v, scaling, softcap, window, dropout))
            continue
        mask = _seen(q, window) if window else None
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=shared
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float, window: int | None, dropout: float
) -> Tensor:
    """Attention of one sequence by hand, since torch's has no bound of the products."""
    copies = q.shape[1] // k.shape[1]
    k, v = (each.repeat_interleave(copies, 1) for each in (k, v))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    products = torch.tanh((q @ k.transpose(2, 3)) * scale / softcap) * softcap
    weights = products.masked_fill(~_seen(q, window), -torch.inf).float().softmax(-1).to(q.dtype)
    return F.dropout(weights, dropout) @ v


def _seen(q: Tensor, window: int | None) -> Tensor:
    """Which tokens of a sequence a token attends to, [tokens, tokens]."""
    size = q.shape[2]
    seen = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    return seen & ~seen.tril(-window) if window else seen


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend by `packed_attention` meanwhile."""
    configs = list(_configs(model))
    before = [config._attn_implementation for config in configs]  # noqa: SLF001 - the setter refuses some models (Gemma 2)
    for config in configs:
        config._attn_implementation = NAME  # noqa: SLF001
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name  # noqa: SLF001


def _configs(model: PreTrainedModel) -> Iterator[PretrainedConfig]:
    """The configs that the layers of a model read, each once."""
    seen: set[int] = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig) and id(config) not in seen:
            seen.add(id(config))
            yield config


AttentionInterface.register(NAME, packed_attention)
