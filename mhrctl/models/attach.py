"""Which layers of a backbone are adapted, and how they come to have slots for adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.config.cells import Cell
from mhrctl.config.params import PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.layer import AdaptedLinear

LAYOUTS = {
    "full": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "light": ("k", "v", "wi_1"),
}
"""The paper's layouts, by the last names of T5's linear layers."""


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
    # Names stay what they were, and so do the weights' (see `AdaptedLinear`): checkpoints are written and read as before.
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


def attach(backbone: nn.Module, adapter: Adapter) -> None:
    """Give the backbone the slots of an adapter's layers."""
    backbone.requires_grad_(requires_grad=False)
    if adapter.shapes:
        inject(backbone, list(adapter.shapes), dropout=adapter.dropout)


def new_adapter(backbone: nn.Module, cell: Cell, params: PretrainParams, *, tasks: int) -> Adapter:
    """Make the adapter that a cell pre-trains, and let the backbone wear it; its init depends on the seed only.

    Raises:
        ParamsError: if the heads do not divide a layer, or a target is no layer.
    """
    row = cell.row
    if row.adapter == "weights":
        backbone.requires_grad_(requires_grad=False)
        return Weights.of(backbone)
    routed = row.routing in ("learned", "random")
    if routed and params.skills < 2:
        raise ParamsError(f"pretrain.skills {params.skills}: {row.name} mixes skills and needs two or more; one skill is lora")
    shapes = inject(backbone, params.targets, dropout=params.dropout)
    torch.manual_seed(cell.seed)
    if row.adapter == "ia3":
        return Scales(shapes)
    try:
        return Inventory(
            shapes,
            heads=cell.heads,
            skills=params.skills if routed else 1,
            rank=params.rank,
            alpha=params.alpha,
            tasks=tasks,
            runs=tasks if row.routing == "private" else 1,
            routing="random" if row.routing == "random" else "learned",
            granularity=params.granularity,
            routing_blocks=params.routing_blocks,
            temperature=params.temperature if params.relaxed_bernoulli else None,
            straight_through=params.straight_through,
            dropout=params.dropout,
        )
    except ValueError as error:
        raise ParamsError(f"--heads {cell.heads}: {error}") from None
