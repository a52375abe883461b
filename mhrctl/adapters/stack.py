"""A frozen adapter lies under one that is trained: the half of MAD-X (arXiv 2005.00052) that is made of LoRAs.

Each layer gives W x + s_u B_u A_u x + s B A x. The two are joined along the rank, so layers, forwards of our own, folding and
generation take a stack as the one LoRA that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mhrctl.adapters.adapter import Adapter, Losses, Objective
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.lower import lower_folder
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.errors import ArtifactError, ParamsError


class Stack(Adapter):
    """A stack is two adapters: what is frozen, and what is trained on it. Files hold the upper one alone.

    Attributes:
        under: frozen, one adapter for all rows.
        upper: of any number of runs, routed or not.
    """

    kind = "stack"
    is_low_rank = True

    def __init__(self, under: Adapter, upper: Adapter) -> None:
        """Put an adapter on another.

        Args:
            under: is frozen.
            upper: stays as it is.

        Raises:
            ParamsError: if the lower one is not one adapter for all rows, or one of the two is no LoRA.
        """
        super().__init__()
        if not under.foldable:
            raise ParamsError(f"under: one adapter without a routing can lie under another, and {under.kind} here is none")
        if other := [each.kind for each in (under, upper) if not each.is_low_rank]:
            raise ParamsError(f"under: LoRAs alone are stacked, and not {other[0]}")
        self.under, self.upper = under.requires_grad_(requires_grad=False).eval(), upper
        self.shapes = {**under.shapes, **upper.shapes}
        self.dropout, self.heads, self.scaling = upper.dropout, upper.heads, upper.scaling

    @classmethod
    def build(cls, *_: Any) -> Self:  # noqa: ANN401 - see `Adapter`
        """See `Adapter`; no row of the methods table is a stack.

        Raises:
            TypeError: in any case.
        """
        raise TypeError("a stack is made of two adapters")

    @property
    def top(self) -> Adapter:
        """The upper adapter."""
        return self.upper

    @property
    def runs(self) -> int:
        """Runs of the upper adapter, which share the lower one."""
        return self.upper.runs

    @property
    def tasks(self) -> int:
        """Tasks of which the upper adapter has something of their own."""
        return self.upper.tasks

    @property
    def routes_by(self) -> Literal["none", "task", "token", "input"]:
        """What the upper adapter is routed by."""
        return self.upper.routes_by

    @property
    def averageable(self) -> bool:
        """Whether the upper adapter has skills or copies."""
        return self.upper.averageable

    def train(self, mode: bool = True) -> Self:
        """Train the upper adapter."""
        super().train(mode)
        self.under.eval()
        return self

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Join the slots of both along the rank; a layer that one of them adapts has its slots."""
        slots: dict[str, Tensor] = self.upper(task_ids)
        under = self.under()
        groups = len(next(iter(slots.values())))
        for name, frozen in under.items():
            lower = frozen.expand(groups, -1, -1)
            slots[name] = torch.cat((lower, slots[name]), 1) if name in slots else lower
        return slots

    @torch.no_grad()
    def joined(self) -> Inventory:
        """Return the LoRAs that do what this does, with the ranks of both together, one for each run.

        Raises:
            ValueError: if the upper adapter is routed.
        """
        if self.routes_by != "none":
            raise ValueError("a routed adapter is joined with the one under it when its skills are mixed")
        slots = self()
        rank = max(len(slot[0]) for slot in slots.values())
        plain = Inventory(self.shapes, InventoryConfig(rank=rank, alpha=rank, dropout=self.dropout), runs=self.runs)
        of_file: dict[str, Tensor] = {}
        for layer in self.shapes:
            # [n, r, d] with rows of zeros where one of the two has no part
            down, up = (F.pad(slot, (0, 0, 0, rank - slot.shape[1])) for slot in (slots[f"{layer}.down"], slots[f"{layer}.up"]))
            of_file[f"{layer}.lora_A"], of_file[f"{layer}.lora_B"] = down.mT[:, None, None], up[:, None, None]
        plain.fill(of_file)
        return plain

    def mixing(self, task_ids: Tensor) -> dict[str, Tensor]:
        """Return the routing weights of the upper adapter."""
        return self.upper.mixing(task_ids)

    def interpolate(self, learned: float) -> None:
        """Mix the routing of the upper adapter with the uniform one."""
        self.upper.interpolate(learned)

    def objective(self, objective: Objective) -> Losses:
        """Return what the upper adapter minimises."""
        return self.upper.objective(objective)

    def constrain(self, optimizer: Optimizer) -> None:
        """Hold steps to what the upper adapter lets them change."""
        self.upper.constrain(optimizer)

    def skill_parameters(self) -> list[nn.Parameter]:
        """Return those of the upper adapter: the lower one has no part in training."""
        return self.upper.skill_parameters()

    def routing_parameters(self) -> list[nn.Parameter]:
        """Return those of the upper adapter."""
        return self.upper.routing_parameters()

    def average(self) -> Adapter:
        """Return the average of the upper adapter, on the same lower one."""
        return Stack(self.under, self.upper.average())

    def like_average(self) -> Adapter:
        """Make an adapter of the average's sizes, on the same lower one."""
        return Stack(self.under, self.upper.like_average())

    def composed(self) -> Adapter:
        """Return the composed upper adapters, on the same lower one."""
        return Stack(self.under, self.upper.composed())

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Adapter:
        """Start the adaptation of the upper adapter, on the same lower one."""
        return Stack(self.under, self.upper.for_new_tasks(seeds, train_skills=train_skills))

    def select(self, runs: Sequence[int]) -> Self:
        """Return some runs of the upper adapter, on the same lower one."""
        return type(self)(self.under, self.upper.select(runs))

    def settings(self) -> dict[str, Any]:
        """Return those of the upper adapter."""
        return self.upper.settings()

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """See `Adapter`; no file holds a stack.

        Raises:
            TypeError: in any case.
        """
        raise TypeError(f"a stack is made of two adapters, and not of {len(settings)} settings")

    def tensors(self) -> dict[str, Tensor]:
        """Return those of the upper adapter."""
        return self.upper.tensors()

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the upper adapter."""
        self.upper.fill(tensors)


def over(under: Adapter | None, upper: Adapter) -> Adapter:
    """Return an adapter on another, or alone where there is none.

    Raises:
        ParamsError: if they cannot be stacked.
    """
    return upper if under is None else Stack(under, upper)


def load_lower(folder: Path | None, fingerprint: str) -> Adapter | None:
    """Read the adapter that lies under others, on what it was itself trained on.

    Args:
        folder: output of the pretrain or average stage; None if there is none.
        fingerprint: of the backbone.

    Raises:
        ArtifactError: if it is missing, was made for another backbone, or what it was trained on has changed.
    """
    if folder is None:
        return None
    stage: Literal["pretrain", "average"] = "average" if folder.parent.name == "average" else "pretrain"
    card = read_card(folder, stage=stage, command=f"mhrctl {stage} {folder.name}")
    if card.facts.backbone != fingerprint:
        raise ArtifactError(f"{folder}: made for another backbone ({card.facts.backbone[:12]}, not {fingerprint[:12]})")
    return over(load_lower(lower_folder(card, folder), fingerprint), load_adapter(folder / ADAPTERS))
