"""An adapted linear layer, and its injection into an unmodified transformers model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhrctl.errors import ParamsError

LAYOUTS = {
    "full": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "light": ("k", "v", "wi_1"),
}
"""The paper's layouts, by the last names of T5's linear layers."""


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus the low-rank update, or the scale, of the adapters that it is called with.

    The layer learns nothing of its own. `lora_a`, `lora_b` and `scale` are slots: the model that wears the adapters passes
    them for each call (`torch.func.functional_call`), so nothing about tasks is stored between calls. Empty slots
    leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model around
    the layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        dropout: of the update's input while training, as in peft's LoRA.
        lora_a: [n, r, d_in] for the n groups of a batch.
        lora_b: [n, r, d_out], with the scaling alpha / r folded in.
        scale: (IA)3's vector, [n, d_out].
    """

    lora_a: Tensor
    lora_b: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias, self.dropout = linear.weight, linear.bias, dropout
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("lora_a", linear.weight.new_zeros(1, 0, self.in_features), persistent=False)
        self.register_buffer("lora_b", linear.weight.new_zeros(1, 0, self.out_features), persistent=False)
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
        groups, rank, _ = self.lora_a.shape
        if rank == 0:
            return y
        rows = F.dropout(x, self.dropout, self.training).reshape(groups, -1, self.in_features)
        low = torch.bmm(self.lora_a, rows.transpose(1, 2))  # [n, r, rows]: r is never the narrow last axis of a product
        return torch.baddbmm(y.view(groups, -1, self.out_features), low.transpose(1, 2), self.lora_b).view_as(y)


def inject(model: nn.Module, targets: str | Sequence[str], *, dropout: float = 0.0) -> dict[str, tuple[int, int]]:
    """Freeze a model and replace its target layers by adapted ones, in place.

    Args:
        model: any transformers model.
        targets: see `find_layers`.
        dropout: of the updates' inputs while training.

    Returns:
        {layer name: (d_in, d_out)} in the model's order.

    Raises:
        ParamsError: if a target names no linear layer.
    """
    model.requires_grad_(requires_grad=False)
    shapes = find_layers(linear_shapes(model), targets)
    for name in shapes:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, AdaptedLinear(model.get_submodule(name), dropout=dropout))  # type: ignore[arg-type]
    return shapes


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """{layer name: (d_in, d_out)} of all linear layers of a model, in its order."""
    return {
        name: (layer.in_features, layer.out_features) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }


def find_layers(linears: Mapping[str, tuple[int, int]], targets: str | Sequence[str]) -> dict[str, tuple[int, int]]:
    """Choose the layers to adapt.

    Args:
        linears: {layer name: (d_in, d_out)} of all linear layers.
        targets: a layout of `LAYOUTS`, a list of names (whole, or last names such as `q`), or a regular expression that
            the whole name must match.

    Returns:
        The chosen part of `linears`, in its order.

    Raises:
        ParamsError: if a name, or the expression, matches no linear layer; says which there are.
    """
    if isinstance(targets, str) and targets not in LAYOUTS:
        try:
            pattern = re.compile(targets)
        except re.error as error:
            layouts = ", ".join(LAYOUTS)
            raise ParamsError(
                f"pretrain.targets: {targets!r} is neither a layout ({layouts}) nor a regular expression: {error}"
            ) from None
        chosen = {name: shape for name, shape in linears.items() if pattern.fullmatch(name)}
        if not chosen:
            raise ParamsError(
                f"pretrain.targets: no linear layer's name matches {targets!r} (names look like {next(iter(linears), 'none')};"
                f" last names are: {', '.join(_last_names(linears))}; layouts are: {', '.join(LAYOUTS)})"
            )
        return chosen
    names = set(LAYOUTS[targets] if isinstance(targets, str) else targets)
    known = {*linears, *_last_names(linears)}
    if missing := sorted(names - known):
        raise ParamsError(
            f"pretrain.targets: no linear layer is named {missing[0]!r} (there are: {', '.join(_last_names(linears))})"
        )
    return {name: shape for name, shape in linears.items() if name in names or name.rpartition(".")[2] in names}


def layout_name(layers: Iterable[str]) -> str:
    """The layout whose last names some layers have, or `other`."""
    last = {name.rpartition(".")[2] for name in layers}
    return next((name for name, names in LAYOUTS.items() if last == set(names)), "other")


def _last_names(linears: Mapping[str, tuple[int, int]]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in linears})
