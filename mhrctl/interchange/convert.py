"""Our adapters, stacked by shape, become the neutral weights of other libraries' formats, and these become adapters."""

from __future__ import annotations

import torch

from mhrctl.adapters.adapter import Adapter, Shapes
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.interchange.weights import LayerSkills, ScaleWeights, SkillWeights


def to_weights(adapter: Adapter) -> SkillWeights | ScaleWeights:
    """Take the weights of an adapter of one run.

    Routing that several layers share is repeated for each; (IA)3 and LoRA have none.

    Raises:
        TypeError: if it is whole weights, which are no adapter.
        ValueError: if it has several runs.
    """
    if adapter.runs != 1:
        raise ValueError(f"{adapter.runs} runs; select one")
    tensors = {name: tensor.detach()[0] for name, tensor in adapter.tensors().items()}
    if isinstance(adapter, Scales):
        return ScaleWeights({layer: tensors[f"{layer}.scale"] for layer in adapter.shapes})
    if not isinstance(adapter, Inventory):
        raise TypeError(f"{adapter.kind} are no adapter of layers")
    parts = adapter.part_of
    layers = {
        layer: LayerSkills(
            tensors[f"{layer}.lora_A"],
            tensors[f"{layer}.lora_B"],
            tensors[f"{parts[layer]}.routing"] if parts else None,
        )
        for layer in adapter.shapes
    }
    return SkillWeights(adapter.alpha, adapter.rank, adapter.heads, adapter.skills, layers)


@torch.no_grad()
def to_adapter(weights: SkillWeights | ScaleWeights, shapes: Shapes) -> Adapter:
    """Make an adapter of one run with these weights.

    Args:
        weights: read from another library's format.
        shapes: {layer name: (d_in, d_out)} of all linear layers of the backbone.
    """
    adapter: Adapter
    if isinstance(weights, ScaleWeights):
        adapter = Scales({layer: shapes[layer] for layer in weights.scales})
        adapter.fill({f"{layer}.scale": scale[None] for layer, scale in weights.scales.items()})
        return adapter
    adapter = Inventory(
        {layer: shapes[layer] for layer in weights.layers},
        InventoryConfig(heads=weights.heads, skills=weights.skills, rank=weights.rank, alpha=weights.alpha),
    )
    tensors = {}
    for layer, skills in weights.layers.items():
        tensors[f"{layer}.lora_A"], tensors[f"{layer}.lora_B"] = skills.lora_A[None], skills.lora_B[None]
        if skills.routing is not None:
            tensors[f"{layer}.routing"] = skills.routing[None]
        elif weights.skills > 1:  # skills that count alike
            tensors[f"{layer}.routing"] = torch.zeros(1, 1, weights.heads, weights.skills)
    adapter.fill(tensors)
    return adapter
