"""Skills are mixed by their weights, for all layers of one shape at once: section 3 of the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def mix(weights: Tensor | None, bank: Tensor) -> Tensor:
    """Sum the skills of a bank by their weights.

    Args:
        weights: [runs, groups, layers, heads, skills], or None for a bank of one skill.
        bank: [runs or 1, layers, heads, skills, d, r].

    Returns:
        [layers, runs * groups, heads, d, r].
    """
    if weights is None:
        return bank.squeeze(3).transpose(0, 1)
    if len(bank) == 1:
        weights = weights.flatten(0, 1)[None]
    mixed: Tensor = _Mix.apply(weights.permute(0, 2, 3, 1, 4), bank.flatten(-2))  # type: ignore[no-untyped-call]
    unstacked: Tensor = mixed.unflatten(-1, bank.shape[-2:])  # from [runs, layers, heads, groups, d * r]
    return unstacked.permute(1, 0, 3, 2, 4, 5).flatten(1, 2)


class _Mix(Function):
    """The product of weights [..., groups, skills] and skills [..., skills, d * r]."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, bank: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(weights, bank)
        mixed: Tensor = torch.matmul(weights, bank)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        weights, bank = ctx.saved_tensors
        grad_weights = torch.matmul(grad, bank.transpose(-1, -2)) if ctx.needs_input_grad[0] else None
        grad_bank = None
        if ctx.needs_input_grad[1]:
            # Of one group there is nothing to sum up, and many narrow matrix products take ten times as long.
            alone = weights.shape[-2] == 1
            grad_bank = weights.transpose(-1, -2) * grad if alone else torch.matmul(weights.transpose(-1, -2), grad)
        return grad_weights, grad_bank
