"""An adapted linear layer, and its injection into an unmodified transformers model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhrctl.errors import ParamsError


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus the low-rank update of the adapters that it is called with.

    The layer learns nothing of its own. `lora_a` and `lora_b` are slots: the model that wears the adapters passes
    them for each call (`torch.func.functional_call`), so nothing about tasks is stored between calls. Empty slots
    (rank 0) leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model around
    the layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        lora_a: [n, r, d_in] for the n groups of a batch.
        lora_b: [n, r, d_out], with the scaling alpha / r folded in.
    """

    lora_a: Tensor
    lora_b: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("lora_a", linear.weight.new_zeros(1, 0, self.in_features), persistent=False)
        self.register_buffer("lora_b", linear.weight.new_zeros(1, 0, self.out_features), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [batch, ..., d_in].

        The batch is n consecutive groups of equally many rows, each with adapters of its own: n = 1 is one adapter for all,
        n = batch is one a row; a batch whose rows were repeated for beams or answer choices needs nothing more, since a
        row's copies follow it.
        """
        y = F.linear(x, self.weight, self.bias)
        groups, rank, _ = self.lora_a.shape
        if rank == 0:
            return y
        rows = x.reshape(groups, -1, self.in_features)
        low = torch.bmm(self.lora_a, rows.transpose(1, 2))  # [n, r, rows]: r is never the narrow last axis of a product
        return torch.baddbmm(y.view(groups, -1, self.out_features), low.transpose(1, 2), self.lora_b).view_as(y)


def inject(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Freeze a model and replace its target layers by adapted ones, in place.

    Args:
        model: any transformers model.
        targets: last names of the linear layers to adapt, such as `q` or `wi_0`.

    Returns:
        {layer name: (d_in, d_out)} in the model's order.

    Raises:
        ParamsError: if a target names no linear layer; says which names there are.
    """
    model.requires_grad_(requires_grad=False)
    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    last_names = {name.rpartition(".")[2] for name in linears}
    if missing := [target for target in targets if target not in last_names]:
        raise ParamsError(
            f"pretrain.targets: no linear layer is named {missing[0]!r} (there are: {', '.join(sorted(last_names))})"
        )
    shapes = {}
    for name, linear in linears.items():
        parent, _, last = name.rpartition(".")
        if last in targets:
            setattr(model.get_submodule(parent), last, AdaptedLinear(linear))
            shapes[name] = (linear.in_features, linear.out_features)
    return shapes
