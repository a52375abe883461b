"""Adapters on disk are one safetensors file, with one set of tensors a layer, whatever is stacked in memory.

    <layer>.lora_A     [runs, heads, skills, d_in / heads, rank]
    <layer>.lora_B     [runs, heads, skills, rank, d_out / heads]
    <part>.routing     [runs, tasks, heads, skills], unless there is one skill; <part>, at the finest a layer, shares it
    <layer>.scale      [runs, d_out], of (IA)3
    <weight>           [runs, ...], of full fine-tuning

What methods beside the paper's keep is said in their modules.

Pre-training and average write one run (or one for each training task, where each has its own adapter); adaptation one run for
each test task, in the order of its card. Of one run, A and B have the layout of peft's Poly layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mhrctl.adapters.adapter import Adapter, Shapes, trainable
from mhrctl.adapters.build import adapter_kinds
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.finite import require_finite
from mhrctl.adapters.inventory import Inventory, inventory_settings
from mhrctl.artifacts.reading import reading
from mhrctl.errors import ArtifactError, DivergedError

IN_MEMORY = 2**28
"""Bytes of a pool's file up to which all of it is kept in memory: a matter of time, not of results."""


def save_adapter(adapter: Adapter, path: Path) -> None:
    """Write an adapter, without what is frozen under it, with its kind and settings as the file's metadata.

    Raises:
        DivergedError: if one of its numbers is not finite.
    """
    adapter = adapter.top
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors().items()}
    require_finite(tensors, f"{path.name}, which was to be written", error=DivergedError, how="lower the learning rates")
    save_file(tensors, path, {adapter.kind: json.dumps(adapter.settings())})


def save_runs(tensors: Mapping[str, Tensor], shapes: Shapes, config: InventoryConfig, path: Path) -> None:
    """Write LoRAs, a run each, as `save_adapter` would an inventory of them; the tensors may be mapped from files.

    Args:
        tensors: {`<layer>.lora_A`: [runs, 1, 1, d_in, rank], `<layer>.lora_B`: [runs, 1, 1, rank, d_out]}, all finite.
        shapes: {layer: (d_in, d_out)}.
        config: of the inventory.
        path: of the file.
    """
    runs = len(next(iter(tensors.values())))
    save_file(dict(tensors), path, {Inventory.kind: json.dumps(inventory_settings(shapes, config, runs=runs))})


def load_adapter(path: Path, runs: Sequence[int] | None = None) -> Adapter:
    """Read what `save_adapter` wrote.

    Args:
        path: of the file.
        runs: of the independent adapters in it, those to read, in this order; None reads all.

    Raises:
        ArtifactError: if it is not as its card says, or cannot be read, or one of its numbers is not finite.
    """
    with reading(path), mapped(path) as file:
        return _adapter_of(file, path, runs)


def _adapter_of(file: Any, path: Path, runs: Sequence[int] | None) -> Adapter:  # noqa: ANN401 - safetensors has no types
    """Read an adapter, or those of some runs, from its open file."""
    ((kind, text),) = file.metadata().items()
    settings = json.loads(text)
    if runs is None:
        tensors = load_file(path)
    else:
        settings["runs"] = len(runs)
        tensors = {name: _runs_of(file.get_slice(name), runs) for name in file.keys()}  # noqa: SIM118 - not a mapping
    adapter = adapter_kinds()[kind].of_settings(settings)
    require_finite(tensors, path, error=ArtifactError, how=f"make {path.parent} again")
    adapter.fill(tensors)
    return adapter


class Pool:
    """A pool's adapters are read when they are asked for, or once where all of them are small.

    Attributes:
        first: of them, whose layers all have.
        numbers: of one of them.
    """

    def __init__(self, path: Path) -> None:
        """Look at the file of a pool.

        Raises:
            ArtifactError: as of `load_adapter`.
        """
        self._path = path
        with reading(path):  # once, since to compare it with its card is to read all of it
            self._file = mapped(path)
            self._adapter = _adapter_of(self._file, path, None) if path.stat().st_size <= IN_MEMORY else None
        self.first = self.select([0])
        self.numbers = trainable(self.first.parameters())

    def select(self, runs: Sequence[int]) -> Adapter:
        """Return the adapters at some places, in this order."""
        return _adapter_of(self._file, self._path, runs) if self._adapter is None else self._adapter.select(runs)


def mapped(path: Path) -> Any:  # noqa: ANN401 - safetensors has no types
    """Open a file of adapters of which a part is read; it may be larger than the memory.

    Tensors are numpy's: torch maps a file to write to, and Linux refuses that beyond the memory's size.
    """
    return safe_open(path, "numpy")


def _runs_of(stored: Any, runs: Sequence[int]) -> Tensor:  # noqa: ANN401 - safetensors has no types
    """Read a part of a tensor, whose first axis is runs."""
    return torch.cat([torch.from_numpy(stored[run : run + 1]) for run in runs])
