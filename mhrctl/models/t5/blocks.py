"""Whole blocks of T5 are compiled by torch.compile where rows and groups are equally long: one graph for all layers of a stack.

At small widths most of what a step takes is calls, and here a block is one. The mathematics is that of
`mhrctl.models.t5.functions`, in operations that torch.compile differentiates and fuses by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mhrctl.models.t5.pointwise import CUBIC, SLOPE

Layer = tuple[Tensor, Tensor | None, Tensor | None]
"""W [d_out, d], and A [n, r, d] and B [n, r, d_out] of its update, or None."""


class Attention(NamedTuple):
    """An attention is a layer of a block.

    Attributes:
        norm: weight of the norm before.
        q: of the queries.
        k: of the keys.
        v: of the values.
        o: of the output.
        mask: what is added to the scores, or None.
    """

    norm: Tensor
    q: Layer
    k: Layer
    v: Layer
    o: Layer
    mask: Tensor | None


class FeedForward(NamedTuple):
    """A gated feed-forward is the last layer of a block.

    Attributes:
        norm: weight of the norm before.
        gate: of what goes through the activation.
        value: of what is multiplied by that.
        output: of the product.
    """

    norm: Tensor
    gate: Layer
    value: Layer
    output: Layer


class Sizes(NamedTuple):
    """Sizes are what a graph is made for.

    Attributes:
        heads: of attention.
        eps: of the norms.
        rows: of the batch.
    """

    heads: int
    eps: float
    rows: int


def run_block(
    x: Tensor,
    encoded: Tensor | None,
    attention: Attention,
    cross: Attention | None,
    feed_forward: FeedForward,
    sizes: Sizes,
) -> Tensor:
    """Run a block of an encoder, or, with what it attends to, of a decoder.

    Args:
        x: [tokens, d], rows of equal lengths.
        encoded: likewise, of the inputs.
        attention: to x itself.
        cross: to `encoded`.
        feed_forward: what comes last.
        sizes: see there.
    """
    # Graphs belong to a function's code, of which there are a few at most: they differ in whether gradients are wanted, too.
    form = cross is None, torch.is_grad_enabled(), x.requires_grad
    if form not in _BLOCKS:
        copied = FunctionType(_block.__code__.replace(), _block.__globals__)
        _BLOCKS[form] = torch.compile(copied, options={"size_asserts": False})
    y: Tensor = _BLOCKS[form](x, encoded, attention, cross, feed_forward, sizes)
    return y


_BLOCKS: dict[Any, Callable[..., Tensor]] = {}
"""{form: the compiled block}."""


def _block(
    x: Tensor,
    encoded: Tensor | None,
    attention: Attention,
    cross: Attention | None,
    feed_forward: FeedForward,
    sizes: Sizes,
) -> Tensor:
    normed = _norm(x, attention.norm, sizes.eps)
    x = _attended(x, normed, normed, attention, sizes)
    if cross is not None and encoded is not None:
        x = _attended(x, _norm(x, cross.norm, sizes.eps), encoded, cross, sizes)
    normed = _norm(x, feed_forward.norm, sizes.eps)
    gate, value = _linear(normed, feed_forward.gate, feed_forward.value)
    wide = gate.to(torch.promote_types(gate.dtype, torch.float32))
    activation = wide * torch.sigmoid((wide.square() * (SLOPE * CUBIC) + SLOPE) * wide)
    return _linear(activation.to(gate.dtype) * value, feed_forward.output)[0] + x


def _attended(x: Tensor, queries: Tensor, keys: Tensor, layer: Attention, sizes: Sizes) -> Tensor:
    if queries is keys:
        projected = _linear(queries, layer.q, layer.k, layer.v)
    else:
        projected = *_linear(queries, layer.q), *_linear(keys, layer.k, layer.v)
    q, k, v = (each.view(sizes.rows, -1, sizes.heads, each.shape[1] // sizes.heads).transpose(1, 2) for each in projected)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=layer.mask, scale=1.0)
    return _linear(mixed.transpose(1, 2).reshape(len(x), -1), layer.o)[0] + x


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + eps)).to(x.dtype) * weight


def _linear(x: Tensor, *layers: Layer) -> tuple[Tensor, ...]:
    """The products of one input with layers."""
    flat = [part for layer in layers for part in layer]
    outputs: tuple[Tensor, ...] = _Linear.apply(x, *flat)  # type: ignore[no-untyped-call]
    return outputs


class _Linear(Function):
    """Products with frozen weights and their updates: sums over a token's numbers join the kernels around them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *flat: Tensor | None) -> tuple[Tensor, ...]:  # noqa: ANN401
        outputs, lows = [], []
        for weight, a, b in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            y, low = x @ weight.t(), None  # type: ignore[union-attr]
            if a is not None and b is not None:
                low = _reduce(_grouped(x, a), a)
                y = _minus(_grouped(y, b), -low, b).view_as(y)
            outputs.append(y)
            lows.append(low)
        ctx.save_for_backward(x, *flat, *lows)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, *saved = ctx.saved_tensors
        count = len(grads)
        flat, lows = saved[: 3 * count], saved[3 * count :]
        grad_x, grad_lows, below = None, [], []
        for grad, weight, a, b in zip(grads, flat[::3], flat[1::3], flat[2::3], strict=True):
            product = grad @ weight
            grad_x = product if grad_x is None else grad_x - -product
            if a is not None and b is not None:
                grad_lows.append(_reduce(_grouped(grad, b), b))
                below.append(a)
        if not below or grad_x is None:
            return grad_x, *[None] * len(flat)
        grad_low, a = torch.cat(grad_lows, 1), torch.cat(below, 1)
        grad_x = _minus(_grouped(grad_x, a), -grad_low, a).view_as(x)
        grad_as = iter(_correlate(grad_low, _grouped(x, a)).split([part.shape[1] for part in below], 1))
        of_layers: list[Tensor | None] = []
        for grad, low, b in zip(grads, lows, flat[2::3], strict=True):
            of_layers += [None] * 3 if low is None else [None, next(grad_as), _correlate(low, _grouped(grad, b))]
        return grad_x, *of_layers


def _grouped(x: Tensor, by_group: Tensor) -> Tensor:
    return x.view(len(by_group), -1, x.shape[1])


def _reduce(x: Tensor, a: Tensor) -> Tensor:
    """The product of [n, tokens, d] with [n, r, d], [n, r, tokens]."""
    return torch.stack([(x * a[:, rank, None]).sum(2) for rank in range(a.shape[1])], 1)


def _minus(y: Tensor, low: Tensor, b: Tensor) -> Tensor:
    """The difference of y [n, tokens, d] and the product of [n, r, tokens] with [n, r, d].

    Sums are written as differences here: of a matrix product plus something torch.compile makes one call for a CPU, which first
    copies that something, where a difference joins the kernel of what comes next.
    """
    for rank in range(b.shape[1]):
        y = y - low[:, rank, :, None] * b[:, rank, None]
    return y


def _correlate(low: Tensor, x: Tensor) -> Tensor:
    """The product of [n, r, tokens] with [n, tokens, d], [n, r, d].

    Of a product with one row torch.compile makes a sum over tokens of its own, which goes against the grain of memory.
    """
    if low.shape[1] > 1:
        return torch.bmm(low, x)
    return torch.bmm(torch.cat([low, torch.zeros_like(low)], 1), x)[:, :1]
