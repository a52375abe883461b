"""An adapted linear layer takes the place of one of an unmodified transformers model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdaptedLinear(nn.Module):
    """An adapted layer is a frozen linear layer plus the low-rank update, or the scale, of the adapters that it is called with.

    The layer learns nothing of its own. `down`, `up` and `scale` are slots: the model that adapters are attached to passes
    them for each call (`torch.func.functional_call`), so nothing about tasks is stored between calls. Empty slots
    leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model around
    the layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        dropout: of the update's input while training, as in peft's LoRA.
        down: [n, r, d_in] for the n groups of a batch.
        up: [n, r, d_out], with the scaling alpha / r folded in.
        scale: (IA)3's vector, [n, d_out].
    """

    down: Tensor
    up: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias, self.dropout = linear.weight, linear.bias, dropout
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("down", linear.weight.new_zeros(1, 0, self.in_features), persistent=False)
        self.register_buffer("up", linear.weight.new_zeros(1, 0, self.out_features), persistent=False)
        self.register_buffer("scale", linear.weight.new_zeros(0, self.out_features), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [batch, ..., d_in].

        The batch is n consecutive groups of equally many rows, each with adapters of its own: n = 1 is one adapter for all,
        n = batch is one a row; a batch whose rows were repeated for beams or answer choices needs nothing more, since a
        row's copies follow it.
        """
        y = F.linear(x, self.weight, self.bias)
        if len(self.scale):
            return (y.view(len(self.scale), -1, self.out_features) * self.scale[:, None]).view_as(y)
        groups, rank, _ = self.down.shape
        if rank == 0:
            return y
        rows = F.dropout(x, self.dropout, self.training).reshape(groups, -1, self.in_features)
        low = torch.bmm(self.down, rows.transpose(1, 2))  # [n, r, rows]: r is never the narrow last axis of a product
        return torch.baddbmm(y.view(groups, -1, self.out_features), low.transpose(1, 2), self.up).view_as(y)
