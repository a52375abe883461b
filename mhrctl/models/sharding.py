"""The frozen weights of a backbone are divided among processes; each gathers those of a block while it computes with them.

It is torch's FSDP 2. A block has its weights within its own call; T5's forward of our own, which calls no block, reads them by
`with_weights`. What is in no block is there while `mhrctl.models.adapted.AdaptedModel` runs, by `with_weights` too: within it
the backbone may run several times, by its forward. Each call of it would gather weights anew, in one process more often than
in another, where all must gather equally often.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import Shard
from transformers import PreTrainedModel

from mhrctl.errors import ParamsError
from mhrctl.models.speed import Sharding

WASTED = 1 / 8
"""Part of a weight's numbers that padding may add where its first axis is divided, which takes no copy after gathering."""
_CALL = "call_with_weights"
"""Attribute of what is gathered: it calls a function meanwhile."""


def shard(model: PreTrainedModel, mesh: DeviceMesh, sharding: Sharding) -> None:
    """Leave each process its part of a frozen model's weights, on the device of the mesh, in place.

    Each block is gathered for its forward and again for its backward; what is in no block (embeddings, the output layer, the
    last norm) from the forward on until the backward has ended. No process waits for another here.

    Args:
        model: whose layers were injected, the same in every process.
        mesh: of the processes, which has one axis.
        sharding: how.

    Raises:
        ParamsError: if the weights of the model are quantised.
        ValueError: if a weight of the model is trained.
    """
    # No list of the weights is kept, which would keep them whole.
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("only frozen weights are sharded")
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ParamsError("--shard: the backbone's weights are quantised, which are not divided among processes; leave it out")
    # Of blocks that return views (OPT's); nothing changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    processes = mesh.size()
    options: dict[str, Any] = {
        "mesh": mesh,
        "shard_placement_fn": lambda parameter: Shard(divided_axis(parameter.shape, processes)),
        "offload_policy": CPUOffloadPolicy() if sharding.offloads and mesh.device_type != "cpu" else OffloadPolicy(),
    }
    parts = blocks(model)
    for block in parts:
        fully_shard(block, reshard_after_forward=sharding.reshards, **options)
    fully_shard(model, **options)
    for module in (*parts, model):
        setattr(module, _CALL, _call)
        register_fsdp_forward_method(module, _CALL)


def is_sharded(model: nn.Module) -> bool:
    """Return whether each process has a part of a model's weights alone."""
    return isinstance(model, FSDPModule)


def with_weights(module: nn.Module, function: Callable[..., Any], *tensors: Any) -> Any:  # noqa: ANN401
    """Call a function of a backbone's or a block's weights as if it were the module's forward.

    Args:
        module: the backbone or a block, whose weights are there meanwhile, and again when gradients go back through it.
        function: is called with the tensors.
        *tensors: all that the function reads whose gradients need the weights: once these are known, they are let go of.
    """
    call = getattr(module, _CALL, None)
    return function(*tensors) if call is None else call(function, *tensors)


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks of a transformer: what its outermost lists of modules hold, but for single layers (Gemma 3n's)."""
    return list(_listed(model))


def divided_axis(shape: tuple[int, ...], processes: int) -> int:
    """Return the axis of a weight that is divided: the first, unless it is so short that parts would be very unequal.

    So a stack of a few experts is divided within them.
    """
    first = shape[0]
    if -first % processes <= first * WASTED:
        return 0
    return next((axis for axis, size in enumerate(shape) if size % processes == 0), 0)


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(block.children()))
        else:
            yield from _listed(child)


def _call(function: Callable[..., Any], *tensors: Any) -> Any:  # noqa: ANN401
    return function(*tensors)
