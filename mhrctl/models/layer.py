"""An adapted linear layer takes the place of one of an unmodified transformers model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypeIs

from mhrctl.adapters.token_routing import TokenRouting, mixed
from mhrctl.config.sections import QUANTISERS
from mhrctl.models.product import EqualGroups, Groups, MaskedGroups, SplitGroups, adapted_product, updated

if TYPE_CHECKING:  # `mhrctl check` looks at a T5 without transformers, which takes seconds to import
    from transformers.pytorch_utils import Conv1D

_PACKAGES = {each.package for each in QUANTISERS.values()}
MASKED = 128
"""Columns of all groups' low-rank products together up to which one product of all, masked, costs less than one a group."""
LONG = 16
"""Tokens of a group from which on, in fp32 on a CPU, a product a group costs less all the same."""


class AdaptedLinear(nn.Module):
    """An adapted layer is a frozen linear layer plus the low-rank update, or the scale, of the adapters that it is called with.

    The layer learns nothing of its own. `down`, `up`, `router`, `scale`, `owners` and `sizes` are slots: the model that
    adapters are attached to passes them for each call (`torch.func.functional_call`), so nothing about tasks is stored between
    calls. Empty slots leave the frozen layer as it was. `weight` and `bias` keep their names, so the state dict of the model
    around the layer does not change, and T5's own look-up of `wo.weight.dtype` still works.

    Attributes:
        transposed: whether the weight is stored as [d_in, d_out].
        quantised: whether the weight is no matrix of floating-point numbers.
        weight: frozen, [d_out, d_in].
        bias: frozen, [d_out], or None.
        dropout: of the update's input while training, as in peft's LoRA.
        token_routing: how much each expert counts for a token, where the update has experts.
        down: [n, r, d_in] for the n groups of a batch.
        up: [n, r, d_out], with the scaling alpha / r folded in.
        router: [n, experts, d_in], their directions; then `down` and `up` are those of all experts (see `mixed`).
        scale: (IA)3's vector, [n, d_out].
        owners: [tokens], the group of each token of a packed row, in ascending order; empty where groups have equally many.
        sizes: [n], how many these are, on the host, so that nobody waits for a device to count them; empty if nobody said.
    """

    transposed: ClassVar[bool] = False
    quantised: ClassVar[bool] = False
    down: Tensor
    up: Tensor
    router: Tensor
    scale: Tensor
    owners: Tensor
    sizes: Tensor

    def __init__(self, linear: nn.Linear | Conv1D, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._open_slots(linear, dropout, linear.weight.dtype)

    def _open_slots(self, linear: nn.Linear | Conv1D, dropout: float, dtype: torch.dtype) -> None:
        self.dropout = dropout
        self.token_routing: TokenRouting | None = None
        self.in_features, self.out_features = shape_of(linear)
        sizes = {
            "down": (1, 0, self.in_features),
            "up": (1, 0, self.out_features),
            "router": (1, 0, self.in_features),
            "scale": (0, self.out_features),
        }
        for slot, size in sizes.items():
            self.register_buffer(slot, torch.zeros(size, dtype=dtype, device=linear.weight.device), persistent=False)
        self.register_buffer("owners", torch.zeros(0, dtype=torch.long, device=linear.weight.device), persistent=False)
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.long), persistent=False)

    @property
    def matrix(self) -> Tensor:
        """The weights as they multiply a column, [d_out, d_in]."""
        return self.weight.t() if self.transposed else self.weight

    def frozen_product(self, x: Tensor) -> Tensor:
        """Apply the frozen layer alone."""
        return F.linear(x, self.matrix, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [batch, ..., d_in].

        The batch is n consecutive groups of equally many rows, each with adapters of its own: n = 1 is one adapter for all,
        n = batch is one a row; a batch whose rows were repeated for beams or answer choices needs nothing more, since a
        row's copies follow it. Or it is one packed row, [1, tokens, d_in], of which `owners` says whose a token is.
        """
        groups, rank, _ = self.down.shape
        if self.token_routing is not None and self.router.shape[1]:
            return self.frozen_product(x) + self._mixed(x, self.token_routing)
        if rank and not len(self.scale):
            return self._updated(x, groups, rank)
        y = self.frozen_product(x)
        if len(self.scale):
            scale, owners = self.scale.to(y.device), self.owners.to(y.device)
            if len(owners):
                return y * scale[owners]
            return (y.view(len(scale), -1, self.out_features) * scale[:, None]).view_as(y)
        return y

    def _updated(self, x: Tensor, groups: int, rank: int) -> Tensor:
        """The frozen product and the update of it."""
        # Slots come from where the adapters are; the layer may be on another GPU.
        down, up, owners = (slot.to(x.device) for slot in (self.down, self.up, self.owners))
        tokens = self._groups(groups, rank, owners)
        if self.quantised or (self.dropout and self.training):
            return updated(self.frozen_product(x), F.dropout(x, self.dropout, self.training), down, up, tokens)
        return adapted_product(x, self.matrix, self.bias, down, up, tokens)

    def _mixed(self, x: Tensor, routing: TokenRouting) -> Tensor:
        """The updates of experts, mixed by what the layer reads."""
        down, up, router = (slot.to(x.device) for slot in (self.down, self.up, self.router))

        def of_groups(tokens: Tensor, groups: slice = slice(None)) -> Tensor:
            weights = routing(tokens, router[groups])
            dropped = F.dropout(tokens, self.dropout, self.training)
            return mixed(dropped, down[groups], up[groups], weights)

        number = len(down)
        if number == 1 or not len(self.owners):
            return of_groups(x.reshape(number, -1, self.in_features)).view(*x.shape[:-1], -1)
        sizes = self.sizes if len(self.sizes) else torch.bincount(self.owners, minlength=number)
        parts = x.split(sizes.tolist(), dim=-2)
        return torch.cat([of_groups(part, slice(place, place + 1)) for place, part in enumerate(parts)], dim=-2)

    def _groups(self, number: int, rank: int, owners: Tensor) -> Groups:
        """How tokens belong to the groups."""
        if number == 1 or not len(owners):
            return EqualGroups(number)
        costs_little = self.down.device.type == "cpu" and self.down.dtype == torch.float32  # to begin a product
        if number * rank <= MASKED and not (costs_little and len(owners) >= LONG * number):
            return MaskedGroups(owners, number, rank)
        sizes = self.sizes if len(self.sizes) else torch.bincount(owners, minlength=number)
        return SplitGroups(sizes.tolist())


class AdaptedConv1D(AdaptedLinear):
    """This is an adapted layer of GPT-2 and its kin, whose weight is [d_in, d_out]."""

    transposed = True


class AdaptedQuantised(AdaptedLinear):
    """This is an adapted layer whose weights are quantised: how they multiply, the frozen layer alone knows.

    Attributes:
        frozen: the layer of a package for 4 or 8 bits.
    """

    quantised = True

    def __init__(self, linear: nn.Linear, *, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.frozen = linear
        self._open_slots(linear, dropout, torch.float32)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The numbers that are stored, in the package's form."""
        return self.frozen.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """See `AdaptedLinear`."""
        return self.frozen.bias

    def frozen_product(self, x: Tensor) -> Tensor:
        """See `AdaptedLinear`."""
        product: Tensor = self.frozen(x)
        return product


def is_quantised_layer(layer: nn.Module) -> bool:
    """Return whether a linear layer's weights are no matrix of floating-point numbers, but something that stands for one."""
    if not isinstance(layer, nn.Linear):
        return False
    return not layer.weight.is_floating_point() or type(layer.weight).__module__.partition(".")[0] in _PACKAGES


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
    if isinstance(linear, nn.Linear) and is_quantised_layer(linear):
        return AdaptedQuantised(linear, dropout=dropout)
    return (AdaptedConv1D if is_conv1d(linear) else AdaptedLinear)(linear, dropout=dropout)
