"""It is decided here which layers of a backbone are adapted, and they get slots for adapters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import regex
import torch
from torch import nn

from mhrctl.adapters.adapter import Adapter, Shapes
from mhrctl.adapters.build import AdapterSettings, adapter_class, build_adapter, start_of
from mhrctl.adapters.granularity import require_coders
from mhrctl.config.methods import Method
from mhrctl.config.reading import shown
from mhrctl.errors import ParamsError
from mhrctl.models.layer import AdaptedLinear, adapted, is_conv1d, shape_of
from mhrctl.models.layouts import LAYOUTS, layers_of, require_experts, unreachable_experts

MATCH_SECONDS = 5
"""For all names together: an expression that anybody means takes milliseconds."""


class PretrainSettings(AdapterSettings, Protocol):
    """These are the settings of a pre-training that make its adapter, and choose its layers."""

    @property
    def targets(self) -> str | list[str]:
        """The layers to adapt (see `find_layers`)."""


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
        setattr(model.get_submodule(parent), last, adapted(model.get_submodule(name), dropout=dropout))  # type: ignore[arg-type]
    return shapes


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return {layer name: (d_in, d_out)} of all linear layers of a model, in its order."""
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear) or is_conv1d(layer))
    return {name: shape_of(layer) for name, layer in layers}


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
        matching = _matching(targets, linears)
        chosen = {name: shape for name, shape in linears.items() if name in matching}
        if not chosen:
            raise ParamsError(
                f"targets: no linear layer's name matches {shown(targets)} (names look like {next(iter(linears), 'none')};"
                f" last names are: {', '.join(_last_names(linears))}; layouts are: {', '.join(LAYOUTS)})"
            )
        return chosen
    if isinstance(targets, str):
        return {name: linears[name] for name in layers_of(targets, linears)}
    names = set(targets)
    known = {*linears, *_last_names(linears)}
    if missing := sorted(names - known):
        raise ParamsError(f"targets: no linear layer is named {missing[0]!r} (there are: {', '.join(_last_names(linears))})")
    return {name: shape for name, shape in linears.items() if name in names or name.rpartition(".")[2] in names}


def _matching(expression: str, names: Iterable[str]) -> set[str]:
    """The names that a regular expression matches as a whole, in bounded time: some expressions take for ever on some names."""
    try:
        pattern = regex.compile(expression, regex.VERSION0)
        end = time.monotonic() + MATCH_SECONDS
        return {name for name in names if pattern.fullmatch(name, timeout=max(end - time.monotonic(), 0.001))}
    except TimeoutError:
        raise ParamsError(
            f"targets: {shown(expression)} takes more than {MATCH_SECONDS} s to match the layers' names;"
            " write it without a repetition within a repetition"
        ) from None
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        layouts = ", ".join(LAYOUTS)
        raise ParamsError(
            f"targets: {shown(expression)} is neither a layout ({layouts}) nor a regular expression: {error}"
        ) from None


def _last_names(linears: Mapping[str, tuple[int, int]]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in linears})


def attach(backbone: nn.Module, adapter: Adapter) -> None:
    """Give the backbone the slots of an adapter's layers, unless they have some: then another adapter was attached before."""
    backbone.requires_grad_(requires_grad=False)
    without = [name for name in adapter.shapes if not isinstance(backbone.get_submodule(name), AdaptedLinear)]
    if without:
        inject(backbone, without, dropout=adapter.dropout)


def new_adapter(backbone: nn.Module, row: Method, settings: PretrainSettings, *, heads: int, seed: int, tasks: int) -> Adapter:
    """Make the adapter that a method pre-trains, and give the backbone its slots; its values depend on the seed only.

    Args:
        backbone: any transformers model, whose layers are replaced in place.
        row: the method.
        settings: of the pre-training.
        heads: H.
        seed: of the values.
        tasks: training tasks, or data sets where each has an adapter of its own.

    Raises:
        ParamsError: if a target is no layer, a layout passes over experts, a method that mixes skills has one, or the backbone
            has not the parts that are to share a routing.
        ValueError: if the heads do not divide a layer.
    """
    if row.mixes_skills and settings.skills < 2:
        raise ParamsError(f"skills {settings.skills}: {row.name} mixes skills and needs two or more; one skill is lora")
    require_coders(settings.granularity, list(linear_shapes(backbone)))
    shapes: Shapes = {}
    backbone.requires_grad_(requires_grad=False)
    if not adapter_class(row).replaces_weights:
        from transformers import PreTrainedModel

        if isinstance(backbone, PreTrainedModel):
            require_experts(settings.targets, unreachable_experts(backbone.config, linear_shapes(backbone)))
        shapes = inject(backbone, settings.targets, dropout=settings.dropout)
    torch.manual_seed(seed)
    return build_adapter(row, settings, shapes, backbone, heads=heads, tasks=tasks)


def shape_adapters(
    row: Method, settings: PretrainSettings, linears: Shapes, weights: int, *, heads: int, tasks: int
) -> tuple[Adapter, Adapter]:
    """Make a method's adapters without storage, to count them: what it pre-trains, and the single start of adaptation.

    Args:
        row: the method.
        settings: of the pre-training.
        linears: {layer name: (d_in, d_out)} of all linear layers of the backbone.
        weights: numbers of the backbone.
        heads: H.
        tasks: training tasks, or data sets where each has an adapter of its own.

    Raises:
        ParamsError: if a target is no layer.
        ValueError: if the heads do not divide a layer.
    """
    require_coders(settings.granularity, list(linears))
    replaced = adapter_class(row).replaces_weights
    shapes = find_layers(linears, settings.targets) if row.adds_lora or not replaced else {}
    with torch.device("meta"):
        backbone = nn.ParameterDict({"weights": torch.empty(weights)})
        pretrained = build_adapter(row, settings, {} if replaced else shapes, backbone, heads=heads, tasks=tasks)
        return pretrained, start_of(row, pretrained, settings, shapes, backbone)
