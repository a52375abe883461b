"""The product of tokens with frozen weights, and with the adapters of each token's group, is one differentiable operation.

With x the tokens, W frozen, and the low-rank activations low = A x^T of each group:

    y       = x W^T + low^T B
    dB      = low dy                    dlow = B dy^T
    dA      = dlow x                    dx   = dy W + dlow^T A

Both sums are made in place, so that neither y nor dx is written twice, and every gradient is laid out as what it is the
gradient of. Autograd's own dx of a product over groups is transposed, and all that reads it afterwards goes slowly through
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Groups(Protocol):
    """Groups say which of n adapters each token has; `low` is of whatever form suits them."""

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """Compute low, the product of x [tokens, d] with a [n, r, d] in each group."""

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """Add the product of low with b [n, r, d] to y [tokens, d], which is contiguous."""

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """Sum the products of low with x [tokens, d] over the tokens of each group, [n, r, d]."""


class EqualGroups:
    """Equal groups are so many consecutive parts of the tokens."""

    def __init__(self, number: int) -> None:
        self._number = number

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """See `Groups`; low is [n, r, tokens of a group], so that r is never the narrow last axis of a product."""
        return torch.bmm(a, self.grouped(x).transpose(1, 2))

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """See `Groups`."""
        self.grouped(y).baddbmm_(low.transpose(1, 2), b)

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """See `Groups`."""
        return torch.bmm(low, self.grouped(x))

    def grouped(self, x: Tensor) -> Tensor:
        """Return [tokens, d] as [n, tokens of a group, d], a view."""
        return x.view(self._number, -1, x.shape[-1])


class MaskedGroups:
    """Masked groups are unequal, and one product has the columns of all; low is [tokens, n r], zero where it is another's.

    Narrow matrices are copied before a product that would read them against the grain: they are little of its work.
    """

    def __init__(self, owners: Tensor, number: int, rank: int) -> None:
        columns = torch.arange(number, device=owners.device).repeat_interleave(rank)
        self._others = owners[:, None] != columns
        self._number = number

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """See `Groups`."""
        return (x @ a.flatten(0, 1).t().contiguous()).masked_fill_(self._others, 0)

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """See `Groups`."""
        y.addmm_(low, b.flatten(0, 1))

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """See `Groups`."""
        return (low.t().contiguous() @ x).view(self._number, -1, x.shape[-1])


class SplitGroups:
    """Split groups are unequal, and each has products of its own; low is [r, tokens]."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """See `Groups`."""
        return torch.cat([of_group @ part.t() for of_group, part in zip(a.unbind(), x.split(self._sizes), strict=True)], 1)

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """See `Groups`."""
        for part, narrow, of_group in zip(y.split(self._sizes), low.split(self._sizes, 1), b.unbind(), strict=True):
            part.addmm_(narrow.t(), of_group)

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """See `Groups`."""
        parts = zip(low.split(self._sizes, 1), x.split(self._sizes), strict=True)
        return torch.stack([narrow @ part for narrow, part in parts])


def adapted_product(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, groups: Groups) -> Tensor:
    """Multiply tokens by frozen weights and by their adapters.

    Args:
        x: [..., d_in].
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        down: A, [n, r, d_in].
        up: B, [n, r, d_out].
        groups: of the tokens.

    Returns:
        [..., d_out].
    """
    y: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias, down, up, groups)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


def updated(y: Tensor, x: Tensor, down: Tensor, up: Tensor, groups: Groups) -> Tensor:
    """Add what adapters make of x to what a frozen layer has made of its input.

    Args:
        y: [..., d_out]; it stays as it is.
        x: [..., d_in].
        down: A, [n, r, d_in].
        up: B, [n, r, d_out].
        groups: of the tokens.
    """
    flat = y.reshape(-1, y.shape[-1])
    return _Update.apply(flat, x.reshape(-1, x.shape[-1]), down, up, groups).view_as(y)  # type: ignore[no-untyped-call, no-any-return]


class _Product(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        groups: Groups,
    ) -> Tensor:
        y = F.linear(x, weight, bias)
        low = groups.reduce(x, down)
        groups.expand_(y, low, up)
        ctx.groups = groups
        ctx.save_for_backward(x, weight, down, up, low)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, down, up, low = ctx.saved_tensors
        grad = grad.contiguous()
        grad_low = ctx.groups.reduce(grad, up)
        grad_x = None
        if ctx.needs_input_grad[0]:  # not below the first layer
            grad_x = grad @ weight
            ctx.groups.expand_(grad_x, grad_low, down)
        return grad_x, None, None, ctx.groups.correlate(grad_low, x), ctx.groups.correlate(low, grad), None


class _Update(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, down: Tensor, up: Tensor, groups: Groups) -> Tensor:  # noqa: ANN401
        low = groups.reduce(x, down)
        result = y.clone(memory_format=torch.contiguous_format)
        groups.expand_(result, low, up)
        ctx.groups = groups
        ctx.save_for_backward(x, down, up, low)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, down, up, low = ctx.saved_tensors
        flat = grad.contiguous()
        grad_low = ctx.groups.reduce(flat, up)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
            ctx.groups.expand_(grad_x, grad_low, down)
        return grad, grad_x, ctx.groups.correlate(grad_low, x), ctx.groups.correlate(low, flat), None
