"""Differentiable parts recompute instead of saving, over frozen weights: normed projections, gated ones, token losses.

Why they are written out: autograd keeps what each operation's backward reads, so besides the inputs of norms and gates also
what comes out of them, since adapters read it, and all logits. Much of that is made again here from the rest, at the cost of
an operation a token and no product. With n the normed input, W frozen, and an update's low-rank activations low = A n^T of
each group:

    y       = n W^T + low^T B
    dB      = low dy                    dlow = B dy^T
    dA      = dlow n                    dn   = dy W + dlow^T A

`Segments` has the products by group: `reduce` is A n^T, `expand_` adds low^T B, `correlate` is low x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mhrctl.data.batches import IGNORED
from mhrctl.models.t5.pointwise import EAGER, Pointwise
from mhrctl.models.t5.segments import Segments

_LOGITS = 2**24
"""Logits at a time: a matter of memory, not of results."""


def project(
    x: Tensor,
    weights: Sequence[Tensor],
    updates: Sequence[tuple[Tensor, Tensor] | None],
    segments: Segments,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    pointwise: Pointwise = EAGER,
) -> tuple[Tensor, ...]:
    """Compute several frozen projections of one input, each plus a low-rank update or not.

    Saved for backward are the input before the norm, the reciprocal of its root mean square and the low-rank activations:
    neither the normed input nor anything of the width of an output.

    Args:
        x: [tokens, d].
        weights: W of each projection, [d_out, d].
        updates: A [n, r, d] and B [n, r, d_out] of each, or None.
        segments: the groups of the tokens.
        norm: weight of a T5 norm before the projections, [d].
        eps: of the norm.
        pointwise: by which functions to compute it.

    Returns:
        [tokens, d_out] of each projection.
    """
    # All A read one input, so they are one product, of the sum of their ranks; each B then takes its rows of what that gives.
    above = [update[0] for update in updates if update is not None]
    a = torch.cat(above, 1) if len(above) > 1 else next(iter(above), None)
    bs = [None if update is None else update[1] for update in updates]
    outputs: tuple[Tensor, ...] = _Project.apply(x, norm, eps, segments, pointwise, a, *weights, *bs)  # type: ignore[no-untyped-call]
    return outputs


def gated_project(
    gate: Tensor,
    value: Tensor,
    weight: Tensor,
    update: tuple[Tensor, Tensor] | None,
    segments: Segments,
    *,
    pointwise: Pointwise = EAGER,
) -> Tensor:
    """Compute W (gelu(gate) * value) plus a low-rank update or not; what is in brackets is made again for backward.

    Args:
        gate: [tokens, d_ff].
        value: likewise.
        weight: W, [d_out, d_ff].
        update: A [n, r, d_ff] and B [n, r, d_out], or None.
        segments: the groups of the tokens.
        pointwise: by which functions to compute what is in brackets.
    """
    y: Tensor = _GatedProject.apply(gate, value, segments, pointwise, weight, *(update or (None, None)))  # type: ignore[no-untyped-call]
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float, pointwise: Pointwise = EAGER) -> Tensor:
    """Compute T5's norm of [tokens, d] with a frozen weight [d], x / rms(x) * weight; saved are x and the reciprocal of rms."""
    normed: Tensor = _Norm.apply(x, weight, eps, pointwise)  # type: ignore[no-untyped-call]
    return normed


def token_losses(states: Tensor, weight: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Compute the cross-entropy of each token under a frozen output layer, without its logits being kept.

    Args:
        states: [tokens, d].
        weight: of the output layer, [vocabulary, d].
        labels: [tokens]; -100 is not counted.
        label_smoothing: part of the target mass that is spread over the vocabulary.

    Returns:
        [tokens], in fp32; 0 where the label is -100.
    """
    losses: Tensor = _TokenLosses.apply(states, weight, labels, label_smoothing)  # type: ignore[no-untyped-call]
    return losses


class _Project(Function):
    """See `project`. autograd sees flat arguments only: `weights` are first the W, then as many B, None where there is none."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        segments: Segments,
        pointwise: Pointwise,
        a: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor, ...]:
        half = len(weights) // 2
        normed, rstd = (x, None) if norm is None else pointwise.norm(x, norm, eps)
        outputs = tuple(normed @ weight.t() for weight in weights[:half] if weight is not None)
        low = None if a is None else segments.reduce(normed, a)
        start = 0
        for y, b in zip(outputs, weights[half:], strict=True):
            if b is not None and low is not None:
                segments.expand_(y, low.narrow(-2, start, b.shape[1]), b)
                start += b.shape[1]
        ctx.segments, ctx.pointwise, ctx.half = segments, pointwise, half
        # Without norm and adapters backward is grads times W, and x may go.
        ctx.save_for_backward(None if norm is None and a is None else x, norm, rstd, a, low, *weights)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, norm, rstd, a, low, *weights = ctx.saved_tensors
        segments: Segments = ctx.segments
        grads = tuple(grad.contiguous() for grad in grads)  # attention hands back views with its heads in between
        # Below the first layer nothing is trained, and the gradient of x, most of the work here, is not asked for.
        grad_x = _sum_of_products(grads, weights[: ctx.half]) if ctx.needs_input_grad[0] else None
        grad_a, grad_lows, start = None, [], 0
        grad_bs: list[Tensor | None] = []
        for grad, b in zip(grads, weights[ctx.half :], strict=True):
            if b is None:
                grad_bs.append(None)
                continue
            grad_bs.append(segments.correlate(low.narrow(-2, start, b.shape[1]), grad))
            grad_lows.append(segments.reduce(grad, b))
            start += b.shape[1]
        if a is not None:
            grad_low = torch.cat(grad_lows, -2)
            if norm is None:
                grad_a = segments.correlate(grad_low, x)
            else:  # A's input, x * rstd * norm, is not made again: rstd, a number a token, goes to dlow, norm to the result
                grad_a = segments.correlate(segments.weigh(grad_low, rstd), x).mul_(norm)
            if grad_x is not None:
                segments.expand_(grad_x, grad_low, a)
        if grad_x is not None and norm is not None:
            grad_x = ctx.pointwise.norm_backward(grad_x, x, rstd, norm)  # in place: until here it was the normed input's
        return grad_x, None, None, None, None, grad_a, *[None] * ctx.half, *grad_bs


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, pointwise: Pointwise) -> Tensor:  # noqa: ANN401
        normed, rstd = pointwise.norm(x, weight, eps)
        ctx.pointwise = pointwise
        ctx.save_for_backward(x, weight, rstd)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, rstd = ctx.saved_tensors
        # `norm_backward` uses its gradient up, and this one may also be that of something else, such as a residual.
        return ctx.pointwise.norm_backward(grad.clone(), x, rstd, weight), None, None, None


class _GatedProject(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        gate: Tensor,
        value: Tensor,
        segments: Segments,
        pointwise: Pointwise,
        weight: Tensor,
        a: Tensor | None,
        b: Tensor | None,
    ) -> Tensor:
        product = pointwise.gate(gate, value)
        y = product @ weight.t()
        low = None
        if a is not None and b is not None:
            low = segments.reduce(product, a)
            segments.expand_(y, low, b)
        ctx.segments, ctx.pointwise = segments, pointwise
        ctx.save_for_backward(gate, value, weight, a, b, low)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        gate, value, weight, a, b, low = ctx.saved_tensors
        segments: Segments = ctx.segments
        grad = grad.contiguous()
        grad_product = grad @ weight
        grad_a = grad_b = grad_low = None
        if a is not None:
            grad_b, grad_low = segments.correlate(low, grad), segments.reduce(grad, b)
            segments.expand_(grad_product, grad_low, a)
        # The product comes along, as what its gradient needs is most of it; only A's gradient reads it.
        grad_gate, grad_value, product = ctx.pointwise.gate_backward(grad_product, gate, value)
        if grad_low is not None:
            grad_a = segments.correlate(grad_low, product)
        return grad_gate, grad_value, None, None, None, grad_a, grad_b


class _TokenLosses(Function):
    """See `token_losses`. Logits are the largest tensor of all, vocabulary wide, so some tokens have theirs at a time.

    The gradient of a token's loss is made at once, in forward, from the logits that are there, and kept instead of them: it is
    as wide as a state. What backward then brings is a factor a token, for a loss is that token's alone.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:  # noqa: ANN401
        losses = torch.empty(len(states), device=states.device)
        grads = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        size = max(1, _LOGITS // len(weight))
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            logits, counted = (states[part] @ weight.t()).float(), labels[part] != IGNORED
            gold = labels[part].clamp(min=0)[:, None]  # any token for -100, whose loss and gradient `counted` takes away
            log_total = logits.logsumexp(1, keepdim=True)
            loss = log_total - (1 - smoothing) * logits.gather(1, gold)
            if smoothing:
                loss -= smoothing * logits.mean(1, keepdim=True)
            losses[part] = loss.squeeze(1) * counted
            if grads is not None:  # softmax minus target (1 - smoothing on gold, the rest spread evenly), in place of logits
                grad = logits.sub_(log_total).exp_().sub_(smoothing / len(weight))
                grad.scatter_add_(1, gold, torch.full_like(log_total, smoothing - 1)).mul_(counted[:, None])
                torch.mm(grad.to(weight.dtype), weight, out=grads[part])
        ctx.save_for_backward(grads)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (grads,) = ctx.saved_tensors
        return grads * grad[:, None].to(grads.dtype), None, None, None


def _sum_of_products(grads: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
    total: Tensor = grads[0] @ weights[0]
    for grad, weight in zip(grads[1:], weights[1:], strict=True):
        total.addmm_(grad, weight)
    return total
