"""Adapters on disk: one safetensors file, one set of tensors a layer, whatever is stacked in memory.

    <layer>.lora_A    [runs, heads, skills, d_in / heads, rank]
    <layer>.lora_B    [runs, heads, skills, rank, d_out / heads]
    <layer>.routing   [runs, tasks, heads, skills]; absent for one skill

Pre-training and average write one run; adaptation one run for each test task, in the order of its card. Of one run, A and B
have the layout of peft's Poly layer.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mhrctl.adapters.inventory import Inventory


def save_inventory(inventory: Inventory, path: Path) -> None:
    """Write an inventory, with its settings as the file's metadata."""
    tensors = {}
    for names, bank_a, bank_b in zip(inventory.groups.values(), inventory.lora_A, inventory.lora_B, strict=True):
        for place, name in enumerate(names):
            tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"] = bank_a[:, place], bank_b[:, place]
    if inventory.routing is not None:
        for place, name in enumerate(inventory.layers):
            tensors[f"{name}.routing"] = inventory.routing[:, place].unflatten(-1, (inventory.heads, inventory.skills))
    settings = {
        "shapes": inventory.shapes,
        "heads": inventory.heads,
        "skills": inventory.skills,
        "rank": inventory.rank,
        "alpha": inventory.alpha,
        "temperature": inventory.temperature,
        "runs": len(inventory.lora_A[0]),
        "tasks": 1 if inventory.routing is None else inventory.routing.shape[2],
        "routing_runs": 1 if inventory.routing is None else len(inventory.routing),
    }
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        path,
        {"inventory": json.dumps(settings)},
    )


@torch.no_grad()
def load_inventory(path: Path) -> Inventory:
    """Read what `save_inventory` wrote."""
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["inventory"])
    routing_runs = settings.pop("routing_runs")
    inventory = Inventory(**settings)
    tensors = load_file(path)
    for names, bank_a, bank_b in zip(inventory.groups.values(), inventory.lora_A, inventory.lora_B, strict=True):
        bank_a.copy_(torch.stack([tensors[f"{name}.lora_A"] for name in names], 1))
        bank_b.copy_(torch.stack([tensors[f"{name}.lora_B"] for name in names], 1))
    if inventory.routing is not None:
        logits = torch.stack([tensors[f"{name}.routing"] for name in inventory.layers], 1).flatten(-2)
        assert len(logits) == routing_runs  # noqa: S101
        inventory.routing = torch.nn.Parameter(logits)
    return inventory
