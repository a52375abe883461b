"""(IA)3 learns a vector that multiplies the output of each adapted layer (docs/recipe.md, section 3.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter, Shapes, Slots
from mhrctl.adapters.config import AdapterConfig


class Scales(Adapter):
    """Scales give y = l * (W x), l = 1 at first: peft's IA3 with no `feedforward_modules`, T-Few's on k, v and wi_1.

    Attributes:
        vectors: for each width of layer, l of all layers of that width, [runs, layers, d_out].
    """

    kind = "ia3"

    def __init__(self, shapes: Shapes, *, runs: int = 1) -> None:
        super().__init__()
        self.shapes = {name: (d_in, d_out) for name, (d_in, d_out) in shapes.items()}
        self.stacks: dict[int, list[str]] = {}
        for name, (_, d_out) in self.shapes.items():
            self.stacks.setdefault(d_out, []).append(name)
        self.vectors = nn.ParameterList(torch.ones(runs, len(names), d_out) for d_out, names in self.stacks.items())

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make vectors of ones."""
        return cls(shapes, runs=config.runs)

    @property
    def runs(self) -> int:
        """Independent runs."""
        return len(self.vectors[0])

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """Give `<layer>.scale`, [runs, d_out]."""
        return {
            f"{name}.scale": vector
            for names, bank in zip(self.stacks.values(), self.vectors, strict=True)
            for name, vector in zip(names, bank.unbind(1), strict=True)
        }

    def average(self) -> Scales:
        """Return this adapter itself: there are no skills to average."""
        return self

    @torch.no_grad()
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Scales:
        """Copy the vectors once for each new task."""
        new = Scales(self.shapes, runs=len(seeds))
        for target, bank in zip(new.vectors, self.vectors, strict=True):
            target.copy_(bank.expand_as(target))
            target.requires_grad_(train_skills)
        return new

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """Return the vectors of some runs."""
        chosen = type(self)(self.shapes, runs=len(runs))
        for target, bank in zip(chosen.vectors, self.vectors, strict=True):
            target.copy_(bank[list(runs)])
        return chosen

    def fold(self, layer: str, weight: Tensor, bias: Tensor | None, slots: Slots) -> tuple[Tensor, Tensor | None]:
        """Multiply the rows of a weight, and the bias."""
        scale = slots[f"{layer}.scale"][0].to(weight.device)
        return weight * scale[:, None], None if bias is None else bias * scale

    def settings(self) -> dict[str, Any]:
        """Return the shapes and the number of runs."""
        return {"shapes": self.shapes, "runs": self.runs}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make vectors from `settings`."""
        return cls(settings["shapes"], runs=settings["runs"])

    def tensors(self) -> dict[str, Tensor]:
        """Give `<layer>.scale`, [runs, d_out]."""
        return self.forward()

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""
        for names, bank in zip(self.stacks.values(), self.vectors, strict=True):
            bank.copy_(torch.stack([tensors[f"{name}.scale"] for name in names], 1))
