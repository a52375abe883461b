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
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.build import adapter_kinds
from mhrctl.adapters.finite import require_finite
from mhrctl.artifacts.reading import reading
from mhrctl.errors import ArtifactError, DivergedError


def save_adapter(adapter: Adapter, path: Path) -> None:
    """Write an adapter, with its kind and settings as the file's metadata.

    Raises:
        DivergedError: if one of its numbers is not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors().items()}
    require_finite(tensors, f"{path.name}, which was to be written", error=DivergedError, how="lower the learning rates")
    save_file(tensors, path, {adapter.kind: json.dumps(adapter.settings())})


def load_adapter(path: Path) -> Adapter:
    """Read what `save_adapter` wrote.

    Raises:
        ArtifactError: if it is not as its card says, or cannot be read, or one of its numbers is not finite.
    """
    with reading(path):
        with safe_open(path, "pt") as file:
            ((kind, settings),) = file.metadata().items()
        adapter = adapter_kinds()[kind].of_settings(json.loads(settings))
        tensors = load_file(path)
        require_finite(tensors, path, error=ArtifactError, how=f"make {path.parent} again")
        adapter.fill(tensors)
    return adapter
