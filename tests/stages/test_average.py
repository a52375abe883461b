"""average: one ordinary LoRA, the mean of the skills."""

from __future__ import annotations

from pathlib import Path

import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory


def test_the_average_is_the_mean_over_skills_of_every_layer(walked: Path) -> None:
    inventory = load_adapter(walked / "data/pretrain/mhr-h4-s0/adapters.safetensors")
    average = load_adapter(walked / "data/average/mhr-h4-s0/adapters.safetensors")
    assert isinstance(inventory, Inventory)
    assert isinstance(average, Inventory)
    assert (average.heads, average.skills, average.routing) == (1, 1, None)
    for bank, mean in zip(inventory.lora_A, average.lora_A, strict=True):
        expected = torch.cat([bank[0, :, head].mean(1) for head in range(4)], dim=1)  # blocks of rows, one under the other
        torch.testing.assert_close(mean[0, :, 0, 0], expected)
    for bank, mean in zip(inventory.lora_B, average.lora_B, strict=True):
        expected = torch.cat([bank[0, :, head].mean(1) for head in range(4)], dim=2)
        torch.testing.assert_close(mean[0, :, 0, 0], expected)
