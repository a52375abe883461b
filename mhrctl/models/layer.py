"""An adapted linear layer takes the place of one of an unmodified transformers model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypeIs

from mhrctl.models.product import EqualGroups, Groups, MaskedGroups, SplitGroups, adapted_product, updated

if TYPE_CHECKING:  # `mhrctl check` looks at a T5 without transformers, which takes seconds to import
    from transformers.pytorch_utils import Conv1D

MASKED = 128
"""Columns of all groups' low-rank products together up to which one product of all, masked, costs less than one a group."""
LONG = 16
"""Tokens of a group from which on, in fp32 on a CPU, a product a group costs less all the same."""


class AdaptedLinear(nn.Module):
    """An adapted layer is a frozen linear layer plus the low-rank update, or the scale, of the adapters that it is called with.

    The layer learns nothing of its own. `down`, `up`, `scale`, `owners` and `sizes` are slots: the model that adapters are
    attached to passes them for each call (`torch.func.functional_call`), so nothing about tasks is stored between calls. Empty
    slots leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model around the
    layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        transposed: whether the weight is stored as [d_in, d_out].
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        dropout: of the update's input while training, as in peft's LoRA.
        down: [n, r, d_in] for the n groups of a batch.
        up: [n, r, d_out], with the scaling alpha / r folded in.
        scale: (IA)3's vector, [n, d_out].
        owners: [tokens], the group of each token of a packed row, in ascending order; empty where groups have equally many.
        sizes: [n], how many these are, on the host, so that nobody waits for a device to count them; empty if nobody said.
    """

    transposed: ClassVar[bool] = False
    down: Tensor
    up: Tensor
    scale: Tensor
    owners: Tensor
    sizes: Tensor

    def __init__(self, linear: nn.Linear | Conv1D, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias, self.dropout = linear.weight, linear.bias, dropout
        self.in_features, self.out_features = shape_of(linear)
        self.register_buffer("down", linear.weight.new_zeros(1, 0, self.in_features), persistent=False)
        self.register_buffer("up", linear.weight.new_zeros(1, 0, self.out_features), persistent=False)
        self.register_buffer("scale", linear.weight.new_zeros(0, self.out_features), persistent=False)
        self.register_buffer("owners", torch.zeros(0, dtype=torch.long, device=linear.weight.device), persistent=False)
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.long), persistent=False)

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
        groups, rank, _ = self.down.shape
        if rank and not len(self.scale):
            return self._updated(x, groups, rank)
        y = F.linear(x, self.matrix, self.bias)
        if len(self.scale):
            if len(self.owners):
                return y * self.scale[self.owners]
            return (y.view(len(self.scale), -1, self.out_features) * self.scale[:, None]).view_as(y)
        return y

    def _updated(self, x: Tensor, groups: int, rank: int) -> Tensor:
        """The frozen product and the update of it."""
        tokens = self._groups(groups, rank)
        if self.dropout and self.training:
            dropped = F.dropout(x, self.dropout)
            return updated(F.linear(x, self.matrix, self.bias), dropped, self.down, self.up, tokens)
        return adapted_product(x, self.matrix, self.bias, self.down, self.up, tokens)

    def _groups(self, number: int, rank: int) -> Groups:
        """How tokens belong to the groups."""
        if number == 1 or not len(self.owners):
            return EqualGroups(number)
        costs_little = self.down.device.type == "cpu" and self.down.dtype == torch.float32  # to begin a product
        if number * rank <= MASKED and not (costs_little and len(self.owners) >= LONG * number):
            return MaskedGroups(self.owners, number, rank)
        sizes = self.sizes if len(self.sizes) else torch.bincount(self.owners, minlength=number)
        return SplitGroups(sizes.tolist())


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
