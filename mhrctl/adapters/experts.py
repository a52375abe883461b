"""Experts are LoRAs of a layer that are mixed for each token, by what the layer reads while the model runs.

In HydraLoRA (arXiv 2404.19245) they share A, and a router is trained with them:

    W x + (alpha / r) sum_i softmax(G x)_i B_i A x

In Arrow (arXiv 2405.11157) they are a pool that others trained, and the router is read off them, with nothing trained: an
expert's direction is the top right singular vector p_i of its update B_i A_i, and of each token those count whose |p_i x| are
largest. A direction is known exactly, from factors no larger than [d_in, r], where peft iterates.

In a file, beside what an inventory has,

    <layer>.router     [runs, experts, d_in]
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter, Form, Shapes
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.token_routing import TokenRouting
from mhrctl.config.options import ArrowOptions
from mhrctl.errors import ParamsError, unknown


class Experts(Inventory):
    """Experts are the skills of an inventory without a routing of tasks, and a direction for each in every layer.

    Attributes:
        is_low_rank: whether its slots are `down` and `up` alone.
        is_a_shared: whether one A is that of all.
        router: for each shape of layer, the directions, [runs, layers, experts, d_in].
    """

    exports_to: ClassVar[frozenset[Form]] = frozenset()
    is_low_rank: ClassVar[bool] = False
    is_a_shared: ClassVar[bool] = False

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, tasks: int = 1, runs: int = 1) -> None:
        """Make new experts; at first each has the same A, and B is zero.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: its settings, of which the skills are the experts.
            tasks: of which it knows nothing.
            runs: independent adapters.
        """
        super().__init__(shapes, replace(config, skills=1), tasks=tasks, runs=runs)
        self.config, self.skills = config, config.skills
        self.lora_A = _repeated(self.lora_A, 1 if self.is_a_shared else self.skills)
        self.lora_B = _repeated(self.lora_B, self.skills)
        self.router = nn.ParameterList()
        for (d_in, _), names in self.stacks.items():
            bound = 1 / math.sqrt(d_in)
            self.router.append(nn.Parameter(torch.empty(runs, len(names), self.skills, d_in).uniform_(-bound, bound)))

    @property
    def routes_by(self) -> Literal["none", "task", "token", "input"]:
        """The token."""
        return "token"

    def banks(self) -> list[nn.Parameter]:
        """Return all A, all B and all directions, as they are stacked."""
        return [*self.lora_A, *self.lora_B, *self.router]

    @property
    def averageable(self) -> bool:
        """Whether it stands for another adapter: no task needs a routing of its own."""
        return False

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - tasks are not routed
        """Give the experts of each run, whose mixture is the layer's.

        Returns:
            `<layer>.down` [runs, experts * r, d_in] (or [runs, r, d_in], where they share A), `<layer>.up`
            [runs, experts * r, d_out] with the scaling folded in, and `<layer>.router` [runs, experts, d_in].
        """
        slots: dict[str, Tensor] = {}
        banks = zip(self.stacks.values(), self.lora_A, self.lora_B, self.router, strict=True)
        for names, bank_a, bank_b, router in banks:
            down = bank_a[:, :, 0].mT.flatten(2, 3)
            up = bank_b[:, :, 0].flatten(2, 3) * self.scaling
            for slot, of_layers in (("down", down), ("up", up), ("router", router)):
                slots |= {f"{name}.{slot}": tensor for name, tensor in zip(names, of_layers.unbind(1), strict=True)}
        return slots

    def mixing(self, task_ids: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return nothing, as no task is routed."""
        return {}

    def like_average(self) -> Inventory:
        """Return this adapter itself."""
        return self

    def average(self) -> Inventory:
        """Return this adapter itself, which a new task can have as it is."""
        return self

    def composed(self) -> Inventory:
        """Return this adapter itself, as no LoRA does what it does."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return those of an inventory, and `<layer>.router`."""
        layers = (router[:, place] for router in self.router for place in range(router.shape[1]))
        return super().tensors() | {f"{name}.router": router for name, router in zip(self.layers, layers, strict=True)}

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""
        super().fill(tensors)
        for names, router in zip(self.stacks.values(), self.router, strict=True):
            router.copy_(torch.stack([tensors[f"{name}.router"] for name in names], 1))


class HydraLoRA(Experts):
    """HydraLoRA's experts share A; they and their router are trained."""

    kind = "hydra_lora"
    is_a_shared = True
    token_routing = TokenRouting()


class Arrow(Experts):
    """Arrow's experts are the adapters of a pool, as they are; all tasks share them, but for those that are left out of some.

    Attributes:
        left_out: for each run, the expert that has no part in it, if there is one; empty where one run is for all tasks.
    """

    kind = "arrow"
    token_routing: TokenRouting

    def __init__(
        self,
        shapes: Shapes,
        config: InventoryConfig,
        *,
        top_k: int,
        temperature: float,
        left_out: Sequence[int | None] = (),
    ) -> None:
        """Make experts, whose values mean nothing.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the pool's adapters, of which there are so many as it has skills.
            top_k: experts that count for a token.
            temperature: of the softmax over them.
            left_out: for each run, the expert that has no part in it.
        """
        super().__init__(shapes, config)
        self.left_out = tuple(left_out)
        self.token_routing = TokenRouting(top_k, temperature, unsigned=True)
        self.requires_grad_(requires_grad=False)

    @property
    def runs(self) -> int:
        """One, or those that something may be left out of."""
        return len(self.left_out) or 1

    @classmethod
    def like(cls, pool: Adapter, options: ArrowOptions, *, experts: int | None = None) -> Self:
        """Make experts of the sizes of a pool's adapters.

        Args:
            pool: an adapter a run.
            options: of the method.
            experts: how many; None is all of the pool.
        """
        config = replace(_loras(pool).config, skills=experts or pool.runs)
        return cls(pool.shapes, config, top_k=options.top_k, temperature=options.temperature)

    @classmethod
    @torch.no_grad()
    def of(cls, pool: Adapter, names: Sequence[str], options: ArrowOptions, *, left_out: Sequence[str | None] = ()) -> Self:
        """Make the experts of a pool.

        Args:
            pool: an adapter a run.
            names: of its adapters.
            options: of the method; of the general adapters that it names, the mean A and the mean B are subtracted from those
                of all others, which alone are experts (GenKnowSub).
            left_out: for each run, the name of an adapter that has no part in it; one that is no expert makes no difference.

        Raises:
            ParamsError: if a general adapter is none of the pool, or all are general.
        """
        if missing := [name for name in options.general if name not in names]:
            raise ParamsError(f"options.general: {unknown('adapter of the pool', missing[0], names)}")
        general = [place for place, name in enumerate(names) if name in options.general]
        others = [place for place in range(len(names)) if place not in general]
        if not others:
            raise ParamsError("options.general: names all adapters of the pool, and leaves no expert")
        arrow, loras = cls.like(pool, options, experts=len(others)), _loras(pool)
        experts = {names[place]: expert for expert, place in enumerate(others)}
        arrow.left_out = tuple(None if name is None else experts.get(name) for name in left_out)
        for banks, targets in ((loras.lora_A, arrow.lora_A), (loras.lora_B, arrow.lora_B)):
            for bank, target in zip(banks, targets, strict=True):
                values = bank[others] - bank[general].mean(0) if general else bank[others]
                target.copy_(values.transpose(0, 3))  # from runs to experts
        for router, a, b in zip(arrow.router, arrow.lora_A, arrow.lora_B, strict=True):
            router.copy_(directions(a[:, :, 0], b[:, :, 0]))
        return arrow

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Inventory:  # noqa: ARG002 - nothing is trained
        """Return this adapter itself, which all tasks share."""
        return self

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Give the experts: once for all, or for each run, whose directions are zero where they are left out."""
        slots = super().forward(task_ids)
        if not any(expert is not None for expert in self.left_out):
            return slots
        there = torch.ones(self.runs, self.skills, 1, device=self.lora_A[0].device)
        for run, expert in enumerate(self.left_out):
            if expert is not None:
                there[run, expert] = 0
        return {
            name: slot * there if name.endswith(".router") else slot.expand(self.runs, -1, -1) for name, slot in slots.items()
        }

    def select(self, runs: Sequence[int]) -> Self:
        """Return the adapter of some runs, with the same tensors; this adapter itself, if it is of all tasks."""
        if not self.left_out:
            return self
        chosen = copy.copy(self)
        chosen.left_out = tuple(self.left_out[run] for run in runs)
        return chosen

    def settings(self) -> dict[str, Any]:
        """Return those of an inventory, and of the routing of tokens."""
        routing = {"top_k": self.token_routing.top, "temperature": self.token_routing.temperature}
        return super().settings() | routing | {"left_out": list(self.left_out)}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make experts from `settings`."""
        said = dict(settings)
        shapes, how = said.pop("shapes"), {name: said.pop(name) for name in ("top_k", "temperature", "left_out")}
        config = {name: value for name, value in said.items() if name not in ("runs", "tasks")}
        return cls(shapes, InventoryConfig(**config), **how)


def _loras(pool: Adapter) -> Inventory:
    if not isinstance(pool, Inventory):
        raise TypeError(f"arrow routes over LoRAs, and the pool has {pool.kind}")
    return pool


def directions(a: Tensor, b: Tensor) -> Tensor:
    """Return the top right singular vector of each update, whose sign is none; zero of an update that is zero.

    With A = Q R, B A = (B R^T) Q^T, so the vector is Q times one of a matrix no larger than [r, r].

    Args:
        a: A, [..., d_in, r].
        b: B, [..., r, d_out].

    Returns:
        [..., d_in].
    """
    q, upper = torch.linalg.qr(a.double())
    inner = upper @ b.double()
    sizes, vectors = torch.linalg.eigh(inner @ inner.mT)
    return torch.where(sizes[..., -1:] > 0, (q @ vectors[..., -1:]).squeeze(-1), 0).to(a.dtype)


def _repeated(banks: nn.ParameterList, skills: int) -> nn.ParameterList:
    """Return banks of so many skills from those of one."""
    return nn.ParameterList(nn.Parameter(bank.detach().repeat(1, 1, 1, skills, 1, 1)) for bank in banks)
