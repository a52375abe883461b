"""Sequences that lie one after the other in one row of tokens attend each to itself alone, in unmodified transformers models.

Transformers hands the ends of the sequences to attention functions as `cu_seq_lens_q`, the keyword of flash attention's kernel
for unequal lengths. The function of our own that is registered here reads the same keyword and runs one of torch's kernels that
make no mask over all tokens (`mhrctl.models.attention_kernels`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from mhrctl.models.attention_kernels import Ends, Weighing, kernel_of

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
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    key_places: Tensor | None = None,
    **_others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Let every token attend to those before it in its sequence, the last of whose keys are its own.

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
        cu_seq_lens_k: the ends of what they attend to, where that is more than themselves; None is the same.
        max_length_q: tokens of the longest sequence; None is not known.
        max_length_k: the most that one attends to; None is not known.
        key_places: the tokens that they attend to, sequence after sequence, where that is more than themselves.

    Returns:
        [1, tokens, heads, width], and no weights.

    Raises:
        ValueError: if nobody says where sequences end, or the layer has attention sinks, of which this function knows nothing.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention is not told where sequences end")
    if getattr(module, "sinks", None) is not None:
        raise ValueError("packed attention has no sinks")
    if key_places is not None:
        key, value = key.index_select(2, key_places), value.index_select(2, key_places)
    keys = cu_seq_lens_q if cu_seq_lens_k is None else cu_seq_lens_k
    ends = Ends(cu_seq_lens_q, keys, max_length_q or query.shape[2], max_length_k or key.shape[2])
    how = Weighing(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap, dropout)
    return kernel_of(query, value, how)(query, key, value, ends, how), None


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
