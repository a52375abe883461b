"""T5 attends over packed rows: with one position bias a stack, and one call for each block of rows of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Attention

from mhrctl.models.t5.packing import Placement, Plan


@torch.no_grad()
def self_attention_masks(attention: T5Attention, plan: Plan, *, causal: bool) -> list[Tensor | None]:
    """Return what is added to the scores of a stack's self-attention, for each block.

    Args:
        attention: of the stack's first layer, which has the table of relative positions.
        plan: of the stack.
        causal: whether a token sees those before it alone.

    Returns:
        [1 or rows, heads, length, length]: the positions' bias, and the lowest number where there is no key to see.
    """
    length = max(keys for _, _, keys in plan.shapes)
    # T5's bias depends on key minus query alone. A query in the middle of 2 length - 1 keys has all distances in one row, from
    # -(length - 1) to length - 1. Query q's bias is the window of that row which begins at distance -q, so the windows in
    # reverse order are the matrix; that of shorter rows is a corner of it.
    row = attention.compute_bias(1, 2 * length - 1, past_seen_tokens=length - 1)[0, :, 0]  # of all distances
    bias = row.unfold(1, length, 1).flip(1)[None]
    if causal:
        bias.masked_fill_(torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1), _lowest(bias))
    masks: list[Tensor | None] = []
    for (_, _, keys), absent in zip(plan.shapes, plan.absent, strict=True):
        corner = bias[:, :, :keys, :keys]
        masks.append(corner if absent is None else corner.masked_fill(absent, _lowest(bias)))
    return masks


def cross_attention_masks(plan: Plan, dtype: torch.dtype) -> list[Tensor | None]:
    """Return what is added to the scores of attention to the inputs, for each block: [rows, 1, queries, keys], or None."""
    masks: list[Tensor | None] = []
    for (rows, queries, keys), absent in zip(plan.shapes, plan.absent, strict=True):
        if absent is None:
            masks.append(None)
        else:
            mask = torch.zeros(rows, 1, 1, keys, dtype=dtype, device=absent.device)
            masks.append(mask.masked_fill_(absent, _lowest(mask)).expand(-1, -1, queries, -1))
    return masks


def attend(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, masks: Sequence[Tensor | None], *, heads: int, dropout: float
) -> Tensor:
    """Attend within each row.

    Args:
        q: [query tokens, heads * d_kv].
        k: [key tokens, heads * d_kv].
        v: likewise.
        plan: of the rows.
        masks: for each block.
        heads: of the attention.
        dropout: of the attention's weights.

    Returns:
        [query tokens, heads * d_kv].
    """
    # What stands at empty places does not matter: such keys are masked or never seen, what such queries get is not collected.
    queries = _spread(q, plan.queries).split([rows * length for rows, length, _ in plan.shapes])
    keys, values = (_spread(x, plan.keys).split([rows * length for rows, _, length in plan.shapes]) for x in (k, v))
    outputs = []
    for block_q, block_k, block_v, mask, (rows, length, _) in zip(queries, keys, values, masks, plan.shapes, strict=True):
        q4, k4, v4 = (x.view(rows, -1, heads, x.shape[1] // heads).transpose(1, 2) for x in (block_q, block_k, block_v))
        output = F.scaled_dot_product_attention(q4, k4, v4, attn_mask=mask, dropout_p=dropout, scale=1.0)  # T5 has no 1/sqrt(d)
        outputs.append(output.transpose(1, 2).reshape(rows * length, -1))
    together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    if plan.queries is None:
        return together
    collected: Tensor = _Collect.apply(together, plan.queries)  # type: ignore[no-untyped-call]
    return collected


def _spread(x: Tensor, placement: Placement | None) -> Tensor:
    """Tokens at their places in blocks; some token or other at the empty ones."""
    if placement is None:
        return x
    spread: Tensor = _Spread.apply(x, placement)  # type: ignore[no-untyped-call]
    return spread


class _Spread(Function):
    """Selection of tokens, whose gradient is a selection too: no token is counted twice.

    A token also stands at empty places, but no gradient comes from there: see `attend`. autograd does not know that, and would
    add up the gradients of all places of a token, which is slower, and on a GPU in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, placement: Placement) -> Tensor:  # noqa: ANN401
        ctx.placement = placement
        return x.index_select(0, placement.sources)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return grad.index_select(0, ctx.placement.places), None


class _Collect(Function):
    """The reverse: the tokens at their places, and no gradient at the empty ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, placement: Placement) -> Tensor:  # noqa: ANN401
        ctx.placement = placement
        return x.index_select(0, placement.places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return grad.index_select(0, ctx.placement.sources).masked_fill_(ctx.placement.empty, 0), None


def _lowest(x: Tensor) -> float:
    """What hides a key, as in transformers; minus infinity would make NaN of a query that saw none."""
    return torch.finfo(x.dtype).min
