"""One of several processes with a sharded backbone is `python -m tests.models.sharded STORE RANK PROCESSES CASES OUT`.

Each computes what the whole model gives, then what its part of it gives, and the first writes how far they are apart.
"""

from __future__ import annotations

import json
import sys
import warnings
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.smear import SMEAR
from mhrctl.data.batches import Ragged
from mhrctl.models import encoder_decoder as encoder_decoder_module
from mhrctl.models import output
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.output import LOGITS
from mhrctl.models.sharding import blocks, shard
from mhrctl.models.speed import Sharding, Speed
from tests.models.families import ENCODER_DECODERS, decoder, encoder_decoder
from tests.models.test_encoder_decoder import INPUTS, TARGETS, TASKS, rows


@dataclass(frozen=True)
class Case:
    """A model, how it runs, and what it reads; `logits` are those that are there at a time, prompts may be read before."""

    family: str
    speed: dict[str, Any] = field(default_factory=dict)
    packs: bool = False
    choices: bool = True
    dtype: str = "float32"
    reshards: bool = True
    logits: int | None = None
    by_prompts: bool = False

    @property
    def targets(self) -> Ragged:
        """Not equally many tokens in every process."""
        targets = [[40], *TARGETS[1:]] if dist.get_rank() else TARGETS
        return rows(targets if self.choices else targets[::2])

    def model(self) -> tuple[Any, Inventory]:
        """The frozen model with slots, and what is attached."""
        make = encoder_decoder if self.family in ENCODER_DECODERS else decoder
        backbone: Any = deepcopy(make(self.family)).to(getattr(torch, self.dtype))
        torch.manual_seed(0)
        shapes, config = inject(backbone, "full"), InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0)
        adapter = Inventory(shapes, config, tasks=3)
        if self.by_prompts:
            adapter = SMEAR(shapes, replace(config, heads=1), expert_dropout=0.0)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        setattr(backbone, PACKS, self.packs)
        return backbone, adapter

    def numbers(self, backbone: Any, adapter: Inventory) -> list[Tensor]:
        """Losses and gradients of two micro-batches that are accumulated, twice, and what no gradient goes through."""
        model, inputs, targets = AdaptedModel(backbone, adapter, speed=Speed(**self.speed)), rows(INPUTS), self.targets
        numbers: list[Tensor] = []
        model.train()
        for _ in range(2):
            adapter.zero_grad()
            for smoothing in (0.0, 0.1):
                losses = model(TASKS, inputs, targets, label_smoothing=smoothing)
                losses.sum().backward()
                numbers.append(losses.detach())
            numbers += [parameter.grad.clone() for parameter in adapter.parameters() if parameter.grad is not None]
        model.eval()
        with torch.no_grad():
            return [*numbers, model(TASKS, inputs, targets, with_logits=True), model(TASKS, inputs, targets)]


def outcome(case: Case, mesh: DeviceMesh) -> dict[str, Any]:
    """How far the sharded model is from the whole one, and which part of it each process holds."""
    output.LOGITS = encoder_decoder_module.LOGITS = case.logits or LOGITS  # type: ignore[attr-defined]
    whole = case.numbers(*case.model())
    backbone, adapter = case.model()
    total = sum(map(torch.numel, backbone.parameters()))
    shard(backbone, mesh, Sharding(reshards=case.reshards))
    slots = {name: list(slot.shape) for name, slot in backbone.named_buffers() if name.endswith((".down", ".up"))}
    sharded = case.numbers(backbone, adapter)
    for part in (*blocks(backbone), backbone):
        part.reshard()
    parts = [parameter for parameter in backbone.parameters() if isinstance(parameter, DTensor)]
    held = [0] * dist.get_world_size()
    dist.all_gather_object(held, sum(part.to_local().numel() for part in parts))
    pairs = list(zip(whole, sharded, strict=True))
    worst: list[float] = [0.0] * dist.get_world_size()
    dist.all_gather_object(worst, max((one.float() - other.float()).abs().max().item() for one, other in pairs))
    return {
        "worst": max(worst),
        "scale": max(one.float().abs().max().item() for one in whole),
        "held": held,
        "total": total,
        "divided": len(parts) == len(list(backbone.parameters())),
        "slots": slots
        == {name: list(slot.shape) for name, slot in backbone.named_buffers() if name.endswith((".down", ".up"))},
    }


def main() -> None:
    """Be one of the processes."""
    store, rank, processes, cases, out = sys.argv[1:]
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(processes))
    mesh = init_device_mesh("cpu", (int(processes),))
    outcomes = [outcome(Case(**case), mesh) for case in json.loads(cases)]
    if rank == "0":
        Path(out).write_text(json.dumps(outcomes))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
