"""An adapted linear layer takes the place of one of an unmodified transformers model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypeIs

if TYPE_CHECKING:  # `mhrctl check` looks at a T5 without transformers, which takes seconds to import
    from transformers.pytorch_utils import Conv1D

MASKED = 64
"""Columns of all groups' low-rank products together up to which one product of all, masked, costs less than one a group."""


class AdaptedLinear(nn.Module):
    """An adapted layer is a frozen linear layer plus the low-rank update, or the scale, of the adapters that it is called with.

    The layer learns nothing of its own. `down`, `up`, `scale` and `owners` are slots: the model that adapters are attached to
    passes them for each call (`torch.func.functional_call`), so nothing about tasks is stored between calls. Empty slots
    leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model around
    the layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        transposed: whether the weight is stored as [d_in, d_out].
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        dropout: of the update's input while training, as in peft's LoRA.
        down: [n, r, d_in] for the n groups of a batch.
        up: [n, r, d_out], with the scaling alpha / r folded in.
        scale: (IA)3's vector, [n, d_out].
        owners: [tokens], the group of each token of a packed row, in ascending order; empty where groups have equally many.
    """

    transposed: ClassVar[bool] = False
    down: Tensor
    up: Tensor
    scale: Tensor
    owners: Tensor

    def __init__(self, linear: nn.Linear | Conv1D, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias, self.dropout = linear.weight, linear.bias, dropout
        self.in_features, self.out_features = shape_of(linear)
        self.register_buffer("down", linear.weight.new_zeros(1, 0, self.in_features), persistent=False)
        self.register_buffer("up", linear.weight.new_zeros(1, 0, self.out_features), persistent=False)
        self.register_buffer("scale", linear.weight.new_zeros(0, self.out_features), persistent=False)
        self.register_buffer("owners", torch.zeros(0, dtype=torch.long, device=linear.weight.device), persistent=False)

    @property
    def matrix(self) -> Tensor:
        """The weights as they multiply a column, [d_out, d_in]."""
        return self.weight.t() if self.transposed else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [batch, ..., d_in].

        The batch is n consecutive groups of equally many rows, each with adapters of its own: n = 1 is one adapter for all,
        n = batch is one a row; a batch whose rows were repeated for beams or answer choices needs nothing more, since a
        row's copies follow it. Or it is one packed row, [1, tokens, d_in], of which `owners` says whose a token is.
        """
        y = F.linear(x, self.matrix, self.bias)
        groups, rank, _ = self.down.shape
        if len(self.scale):
            if len(self.owners):
                return y * self.scale[self.owners]
            return (y.view(len(self.scale), -1, self.out_features) * self.scale[:, None]).view_as(y)
        if rank == 0:
            return y
        dropped = F.dropout(x, self.dropout, self.training)
        if len(self.owners) and groups > 1:
            return self._of_owners(y, dropped)
        rows = dropped.reshape(groups, -1, self.in_features)
        low = torch.bmm(self.down, rows.transpose(1, 2))  # [n, r, rows]: r is never the narrow last axis of a product
        return torch.baddbmm(y.view(groups, -1, self.out_features), low.transpose(1, 2), self.up).view_as(y)

    def _of_owners(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the updates to one row of tokens whose groups are unequal."""
        groups, rank, _ = self.down.shape
        tokens, flat = x.reshape(-1, self.in_features), y.view(-1, self.out_features)
        if groups * rank <= MASKED:
            columns = torch.arange(groups, device=x.device).repeat_interleave(rank)
            low = (tokens @ self.down.flatten(0, 1).t()) * (self.owners[:, None] == columns)
            return torch.addmm(flat, low, self.up.flatten(0, 1)).view_as(y)
        sizes = torch.bincount(self.owners, minlength=groups).tolist()
        parts = zip(flat.split(sizes), tokens.split(sizes), self.down, self.up, strict=True)
        return torch.cat([torch.addmm(of_group, part @ down.t(), up) for of_group, part, down, up in parts]).view_as(y)


class AdaptedConv1D(AdaptedLinear):
    """This is an adapted layer of GPT-2 and its kin, whose weight is [d_in, d_out]."""

    transposed = True


def is_conv1d(layer: nn.Module) -> TypeIs[Conv1D]:
    """Return whether a layer is GPT-2's linear layer, whose weight is [d_in, d_out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)


def shape_of(linear: nn.Linear | Conv1D | AdaptedLinear) -> tuple[int, int]:
    """Return d_in and d_out of a linear layer."""
    if is_conv1d(linear):
        return linear.weight.shape[0], linear.weight.shape[1]
    return linear.in_features, linear.out_features


def adapted(linear: nn.Linear | Conv1D, *, dropout: float = 0.0) -> AdaptedLinear:
    """Make the adapted layer that takes a linear layer's place."""
    return (AdaptedConv1D if is_conv1d(linear) else AdaptedLinear)(linear, dropout=dropout)
