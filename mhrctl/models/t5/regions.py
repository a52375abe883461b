"""Regions of a T5 block lie between its attentions; torch.compile makes few kernels of each, forward and backward.

What is computed is what `mhrctl.models.t5.functions` computes. Each token reads the low-rank matrices of its group by the
group's number, so that one graph serves groups of all sizes, and the kernels around a matrix product take its updates along:

    y       = n W^T + sum_r low_r B_r[group]        low_r  = n . A_r[group]
    dx      = dy W + sum_r dlow_r A_r[group]        dlow_r = dy . B_r[group]

Sums over the tokens of a group, dA and dB, are products of `Segments`, as they are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mhrctl.models.t5 import pointwise
from mhrctl.models.t5.segments import Segments

Update = tuple[Tensor, Tensor]
Tensors = tuple[Tensor, ...]


def project(
    x: Tensor,
    weights: Sequence[Tensor],
    updates: Sequence[Update | None],
    segments: Segments,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
) -> Tensors:
    """See `mhrctl.models.t5.functions.project`; `residual` is added to the first output."""
    bs = [None if update is None else update[1] for update in updates]
    count = len(weights)
    outputs: Tensors = _Project.apply(x, residual, norm, eps, segments, count, _stacked(updates), *weights, *bs)  # type: ignore[no-untyped-call]
    return outputs


def feed_forward(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    updates: tuple[Update | None, Update | None, Update | None],
    segments: Segments,
    *,
    norm: Tensor,
    eps: float,
) -> Tensor:
    """Compute a gated feed-forward layer, its norm and its residual included.

    Args:
        x: [tokens, d].
        weights: of the gate, the value and the output.
        updates: likewise.
        segments: the groups of the tokens.
        norm: weight of the norm before, [d].
        eps: of the norm.
    """
    *inner, last = updates
    bs = [None if update is None else update[1] for update in inner]
    y: Tensor = _FeedForward.apply(x, norm, eps, segments, *weights, _stacked(inner), *bs, *(last or (None, None)))  # type: ignore[no-untyped-call]
    return y


def _stacked(updates: Sequence[Update | None]) -> Tensor | None:
    """All A of one input, [n, sum of ranks, d]."""
    above = [update[0] for update in updates if update is not None]
    return torch.cat(above, 1) if len(above) > 1 else next(iter(above), None)


class _Project(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        residual: Tensor | None,
        norm: Tensor | None,
        eps: float,
        segments: Segments,
        count: int,
        a: Tensor | None,
        *others: Tensor | None,
    ) -> Tensors:
        weights, bs = others[:count], others[count:]
        outputs, low, rstd = _run(_project, (x, segments.owners, residual), norm, eps, a, weights, bs)
        ctx.segments, ctx.count = segments, count
        ctx.save_for_backward(None if norm is None and a is None else x, norm, rstd, a, low, *others)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, norm, rstd, a, low, *others = ctx.saved_tensors
        weights, bs = others[: ctx.count], others[ctx.count :]
        segments: Segments = ctx.segments
        grads = tuple(grad.contiguous() for grad in grads)
        needed = ctx.needs_input_grad[0]
        tokens = None if norm is None else x, rstd, segments.owners, *grads
        grad_x, grad_low = _run(_project_backward, tokens, norm, a, weights, bs, needed)
        grad_a = None if a is None else _of_a(segments, grad_low, x, norm)
        grad_residual = grads[0] if ctx.needs_input_grad[1] else None
        of_bs = _of_bs(segments, low, grads, bs)
        return grad_x, grad_residual, None, None, None, None, grad_a, *[None] * ctx.count, *of_bs


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        norm: Tensor,
        eps: float,
        segments: Segments,
        *others: Tensor | None,
    ) -> Tensor:
        y, *made = _run(_feed_forward, (x, segments.owners), norm, eps, *others)
        ctx.segments = segments
        ctx.save_for_backward(x, norm, *made, *others)
        output: Tensor = y
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, norm, gate, value, low, rstd, low_out, *others = ctx.saved_tensors
        _, _, _, a, b_gate, b_value, a_out, b_out = others
        segments: Segments = ctx.segments
        grad = grad.contiguous()
        tokens = grad, x, rstd, gate, value, segments.owners
        grad_x, grad_gate, grad_value, product, grad_low, grad_low_out = _run(
            _feed_forward_backward, tokens, norm, *others, ctx.needs_input_grad[0]
        )
        grad_a = None if a is None else _of_a(segments, grad_low, x, norm)
        of_inner = _of_bs(segments, low, (grad_gate, grad_value), (b_gate, b_value))
        of_a_out = None if a_out is None else segments.correlate(segments.low(grad_low_out), product)
        of_b_out = None if b_out is None else segments.correlate(segments.low(low_out), grad)
        return grad_x, *[None] * 6, grad_a, *of_inner, of_a_out, of_b_out


def _of_a(segments: Segments, grad_low: Tensor, x: Tensor, norm: Tensor | None) -> Tensor:
    """The gradient of A, whose input was x, or x normed: then `grad_low` has the reciprocals of its root mean squares."""
    grad = segments.correlate(segments.low(grad_low), x)
    return grad if norm is None else grad.mul_(norm)


def _of_bs(segments: Segments, low: Tensor, grads: Sequence[Tensor], bs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of each B."""
    of_bs: list[Tensor | None] = []
    start = 0
    for grad, b in zip(grads, bs, strict=True):
        if b is None:
            of_bs.append(None)
        else:
            of_bs.append(segments.correlate(segments.low(low[:, start : start + b.shape[1]]), grad))
            start += b.shape[1]
    return of_bs


def _run(function: Callable[..., Any], tokens: Sequence[Tensor | None], *others: Any) -> Any:  # noqa: ANN401
    """Call a region with tensors of one row a token, and with others.

    There is a graph for each form of the arguments, and it is for any number of tokens: so many graphs are compiled as a block
    has different layers, and no more, however batches vary.
    """
    # What is compiled asks whether its arguments want gradients; by itself it would be compiled again for each answer.
    by_token = [None if tensor is None else tensor.detach() for tensor in tokens]
    form = tuple(map(_form, (*tokens, *others)))
    region = _REGIONS.get((function, form))
    if region is None:
        # Graphs belong to a function's code, of which there are a few at most, and calls look through them one by one.
        copied = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        region = _REGIONS[function, form] = torch.compile(copied)
        for tensor in by_token:
            if tensor is not None:
                _leave_open(tensor)
    return region(tuple(by_token), *others)


_REGIONS: dict[Any, Callable[..., Any]] = {}
"""{(function, form of its arguments): the same, compiled}."""


def _leave_open(tensor: Tensor) -> None:
    """Have graphs that are compiled for this tensor be for any number of rows."""
    torch._dynamo.maybe_mark_dynamic(tensor, 0)  # noqa: SLF001


def _form(argument: Any) -> Any:  # noqa: ANN401
    """What a graph is made for."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.shape[1:], argument.device.type
    return tuple(map(_form, argument)) if isinstance(argument, (tuple, list)) else argument


def _project(
    tokens: tuple[Tensor, Tensor, Tensor | None],
    norm: Tensor | None,
    eps: float,
    a: Tensor | None,
    weights: Sequence[Tensor],
    bs: Sequence[Tensor | None],
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    x, owners, residual = tokens
    normed, rstd = (x, None) if norm is None else pointwise.norm(x, norm, eps)
    low = None if a is None else _reduce(normed, a, owners)
    outputs, start = [], 0
    for weight, b in zip(weights, bs, strict=True):
        y = normed @ weight.t()
        if b is not None and low is not None:
            y = _expand(y, low[:, start : start + b.shape[1]], b, owners)
            start += b.shape[1]
        outputs.append(y)
    if residual is not None:
        outputs[0] = outputs[0] + residual
    return outputs, low, rstd


def _project_backward(
    tokens: tuple[Any, ...],
    norm: Tensor | None,
    a: Tensor | None,
    weights: Sequence[Tensor],
    bs: Sequence[Tensor | None],
    needed: bool,
) -> tuple[Tensor | None, Tensor | None]:
    x, rstd, owners, *grads = tokens
    lows = [_reduce(grad, b, owners) for grad, b in zip(grads, bs, strict=True) if b is not None]
    low = torch.cat(lows, 1) if lows else None
    grad_x = None
    if needed:
        grad_x = grads[0] @ weights[0]
        for grad, weight in zip(grads[1:], weights[1:], strict=True):
            grad_x = grad_x - -(grad @ weight)  # see `_expand`
        if low is not None and a is not None:
            grad_x = _expand(grad_x, low, a, owners)
    if x is None or norm is None or rstd is None:
        return grad_x, low
    if grad_x is not None:
        grad_x = _norm_backward(grad_x, x, rstd, norm)
    return grad_x, None if low is None else (low * rstd).to(low.dtype)


def _feed_forward(
    tokens: tuple[Tensor, Tensor],
    norm: Tensor,
    eps: float,
    of_gate: Tensor,
    of_value: Tensor,
    of_output: Tensor,
    a: Tensor | None,
    b_gate: Tensor | None,
    b_value: Tensor | None,
    a_out: Tensor | None,
    b_out: Tensor | None,
) -> tuple[Tensor | None, ...]:
    x, owners = tokens
    (gate, value), low, rstd = _project((x, owners, None), norm, eps, a, (of_gate, of_value), (b_gate, b_value))
    product = pointwise.gate(gate, value)
    y, low_out = product @ of_output.t(), None
    if a_out is not None and b_out is not None:
        low_out = _reduce(product, a_out, owners)
        y = _expand(y, low_out, b_out, owners)
    return y + x, gate, value, low, rstd, low_out


def _feed_forward_backward(
    tokens: tuple[Tensor, ...],
    norm: Tensor,
    of_gate: Tensor,
    of_value: Tensor,
    of_output: Tensor,
    a: Tensor | None,
    b_gate: Tensor | None,
    b_value: Tensor | None,
    a_out: Tensor | None,
    b_out: Tensor | None,
    needed: bool,
) -> tuple[Tensor | None, ...]:
    grad, x, rstd, gate, value, owners = tokens
    grad_product, low_out = grad @ of_output, None
    if a_out is not None and b_out is not None:
        low_out = _reduce(grad, b_out, owners)
        grad_product = _expand(grad_product, low_out, a_out, owners)
    grad_gate, grad_value, product = pointwise.gate_backward(grad_product, gate, value)
    inner = (of_gate, of_value), (b_gate, b_value)
    grad_x, low = _project_backward((x, rstd, owners, grad_gate, grad_value), norm, a, *inner, needed)
    if grad_x is not None:
        grad_x = grad_x + grad
    return grad_x, grad_gate, grad_value, product, low, low_out


def _reduce(x: Tensor, a: Tensor, owners: Tensor) -> Tensor:
    """The product of each token with the low-rank matrix of its group, [tokens, r]."""
    return torch.stack([(x * a[:, rank][owners]).sum(1) for rank in range(a.shape[1])], 1)


def _expand(y: Tensor, low: Tensor, b: Tensor, owners: Tensor) -> Tensor:
    """The sum of y [tokens, d] and of low [tokens, r] times the low-rank matrix of each token's group.

    It is written as a difference: of a matrix product plus something torch.compile makes one call for a CPU, which first
    copies that something, where a difference joins the kernel of what comes next.
    """
    for rank in range(b.shape[1]):
        y = y - -low[:, rank, None] * b[:, rank][owners]
    return y


def _norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """See `mhrctl.models.t5.pointwise.norm_backward`."""
    grad = grad * weight
    along = (grad * x).sum(1, keepdim=True, dtype=rstd.dtype) * rstd.square() / x.shape[1]
    return ((grad - x * along.to(x.dtype)) * rstd).to(x.dtype)
