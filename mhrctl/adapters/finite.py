"""Numbers that are not finite are refused here, wherever tensors are read, written or trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mhrctl.errors import DataError, MhrctlError, listed

SHOWN = 3
"""Tensors that an error names."""


def require_finite(
    tensors: Mapping[str, Tensor], where: Path | str, *, error: type[MhrctlError] = DataError, how: str = ""
) -> None:
    """Check that all numbers of some tensors are finite.

    Args:
        tensors: {name: tensor}, of any shapes, types and devices; those of integers or booleans are passed over.
        where: what holds them, with which the error begins: a file, or a thing in words.
        error: the error to raise.
        how: to mend it, in words.

    Raises:
        MhrctlError: as `error` says; names the first tensors that hold NaN or infinity, and how many others do.
    """
    names = list(not_finite(tensors))
    if names:
        verb = "holds" if len(names) == 1 else "hold"
        raise error(f"{where}: {listed(names, SHOWN)} {verb} NaN or infinity{f'; {how}' if how else ''}")


def not_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the names of the tensors that hold NaN or infinity."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            yield name


def is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers of a tensor are finite; integers and booleans always are."""
    return all_finite([tensor])


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers of some tensors are finite, of whatever devices: the host waits once for each device.

    It takes one pass over them, and no tensor of their size.
    """
    flags: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            # NaN goes through both; infinity is one of them.
            least, most = torch.aminmax(tensor.detach())
            flags.setdefault(tensor.device, []).append(torch.isfinite(least) & torch.isfinite(most))
    return all(bool(torch.stack(of_device).all()) for of_device in flags.values())
