"""The inventory of skills and the routing over it: section 3 of the paper, sections 3.2 and 3.5 of its reference code.

Layers of one shape share one stacked parameter, and all routing logits are one parameter, so a step mixes the adapters of
every layer with a handful of operations. Artifacts on disk have one tensor a layer (see `mhrctl.adapters.files`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

EPS = 1e-12
ROUTING_INIT = 1e-3
"""New routing logits are uniform on (-1e-3, 1e-3): nearly the average of the skills."""

Shapes = Mapping[str, tuple[int, int]]


class Inventory(nn.Module):
    """Skills (LoRAs) of every adapted layer, and the routing of tasks over them.

    The first axis of every tensor is the run: independent inventories trained side by side in one batch (one for each test
    task in adaptation, a single one in pre-training). Skills that are shared by all runs, as in the `_z` variants, have
    one run while the routing has many.

    Attributes:
        lora_A: for each shape of layer, [runs, layers, heads, skills, d_in / heads, rank].
        lora_B: likewise, [runs, layers, heads, skills, rank, d_out / heads].
        routing: logits Z, [runs, all layers, tasks, heads * skills]; None for one skill, which needs no routing.
    """

    def __init__(
        self,
        shapes: Shapes,
        *,
        heads: int = 1,
        skills: int = 1,
        rank: int = 1,
        alpha: float = 1.0,
        tasks: int = 1,
        runs: int = 1,
        temperature: float | None = None,
    ) -> None:
        """Make a new inventory.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            heads: H; must divide every d_in and d_out.
            skills: K.
            rank: r of each skill.
            alpha: the scaling of the update is alpha / rank.
            tasks: rows of the routing.
            runs: independent inventories.
            temperature: of the relaxed Bernoulli that routing is sampled from while training; None uses the plain sigmoid.

        Raises:
            ValueError: if the heads do not divide a dimension.
        """
        super().__init__()
        self.shapes = {name: (d_in, d_out) for name, (d_in, d_out) in shapes.items()}
        for name, shape in self.shapes.items():
            if any(d % heads for d in shape):
                raise ValueError(f"{heads} heads do not divide layer {name} of shape {shape[0]} x {shape[1]}")
        self.heads, self.skills, self.rank = heads, skills, rank
        self.alpha, self.temperature = alpha, temperature
        self.groups: dict[tuple[int, int], list[str]] = {}
        for name, shape in self.shapes.items():
            self.groups.setdefault(shape, []).append(name)
        self.lora_A = nn.ParameterList()
        self.lora_B = nn.ParameterList()
        for (d_in, d_out), names in self.groups.items():
            size = (runs, len(names), heads, skills)
            bound = 1 / math.sqrt(3 * d_in)
            self.lora_A.append(nn.Parameter(torch.empty(*size, d_in // heads, rank).uniform_(-bound, bound)))
            self.lora_B.append(nn.Parameter(torch.zeros(*size, rank, d_out // heads)))
        self.routing = nn.Parameter(new_routing(runs, len(shapes), tasks, heads * skills)) if skills > 1 else None

    @property
    def layers(self) -> list[str]:
        """Layer names in the order of the routing's layer axis."""
        return [name for names in self.groups.values() for name in names]

    def skill_parameters(self) -> list[nn.Parameter]:
        """A and B of all shapes."""
        return [*self.lora_A, *self.lora_B]

    def routing_parameters(self) -> list[nn.Parameter]:
        """Z, if there is any."""
        return [] if self.routing is None else [self.routing]

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose the adapters of each group of a batch.

        Args:
            task_ids: [runs, groups a run], the row of the routing that each group of batch rows uses; ignored without
                routing, where a run is one group.

        Returns:
            {slot: tensor} for `torch.func.functional_call`: `<layer>.lora_a` [n, r, d_in] and `<layer>.lora_b` [n, r, d_out]
            with the scaling folded in; the n groups are ordered by run.
        """
        weights = None if self.routing is None else self.routing_weights(_required(task_ids))
        slots: dict[str, Tensor] = {}
        start = 0
        for names, bank_a, bank_b in zip(self.groups.values(), self.lora_A, self.lora_B, strict=True):
            own = None if weights is None else weights[:, :, start : start + len(names)]
            a = _mix(own, bank_a).movedim(-1, 2).flatten(-2)  # [layers, n, r, d_in]
            b = _mix(own, bank_b).transpose(2, 3).flatten(-2) * (self.alpha / self.rank)
            for name, layer_a, layer_b in zip(names, a.unbind(), b.unbind(), strict=True):
                slots[f"{name}.lora_a"], slots[f"{name}.lora_b"] = layer_a, layer_b
            start += len(names)
        return slots

    def routing_weights(self, task_ids: Tensor) -> Tensor:
        """Mixing coefficients a = sigmoid(Z) / (sum over skills of sigmoid(Z) + 1e-12).

        Args:
            task_ids: [runs, groups a run].

        Returns:
            [runs, groups a run, layers, heads, skills], each row summing to one.
        """
        if self.routing is None:
            raise ValueError("an inventory of one skill has no routing")
        # not indexing, whose gradient adds up in no fixed order on several threads
        rows = torch.take_along_dim(self.routing, task_ids[:, None, :, None], dim=2).transpose(1, 2)
        logits = rows.unflatten(-1, (self.heads, self.skills))
        if self.training and self.temperature is not None:
            noise = torch.rand_like(logits).logit(eps=1e-7)  # logistic
            gates = torch.sigmoid((logits + noise) / self.temperature)
        else:
            gates = torch.sigmoid(logits)
        return gates / (gates.sum(-1, keepdim=True) + EPS)

    @torch.no_grad()
    def average(self) -> Inventory:
        """The mean of the skills as one ordinary LoRA: A_bar = mean_k A_k, B_bar = mean_k B_k (the `_mu` variants)."""
        runs = len(self.lora_A[0])
        merged = Inventory(self.shapes, rank=self.rank, alpha=self.alpha, runs=runs)
        for target, bank in zip(merged.lora_A, self.lora_A, strict=True):
            target.copy_(bank.mean(3).flatten(2, 3)[:, :, None, None])
        for target, bank in zip(merged.lora_B, self.lora_B, strict=True):
            target.copy_(bank.mean(3).transpose(2, 3).flatten(3)[:, :, None, None])
        return merged

    @torch.no_grad()
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Inventory:
        """Start the adaptation of one run to each of several new tasks, side by side.

        Args:
            seeds: for each run, of its new routing row, so that a run does not depend on the runs beside it.
            train_skills: give every run its own copy of the skills to train; otherwise all share these, frozen.
        """
        new = self._like(runs=len(seeds) if train_skills else 1)
        for target, bank in zip(new.skill_parameters(), self.skill_parameters(), strict=True):
            target.copy_(bank.expand_as(target))
            target.requires_grad_(train_skills)
        if new.routing is not None:
            size = (len(self.shapes), 1, self.heads * self.skills)
            rows = [new_routing(*size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            new.routing = nn.Parameter(torch.stack(rows))
        return new

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Inventory:
        """The inventory of some runs."""
        shared = len(self.lora_A[0]) == 1
        chosen = self._like(runs=1 if shared else len(runs))
        for target, bank in zip(chosen.skill_parameters(), self.skill_parameters(), strict=True):
            target.copy_(bank if shared else bank[list(runs)])
        if self.routing is not None:
            chosen.routing = nn.Parameter(self.routing[list(runs)])
        return chosen

    def _like(self, *, runs: int) -> Inventory:
        """A new inventory of the same settings for one task."""
        return Inventory(
            self.shapes,
            heads=self.heads,
            skills=self.skills,
            rank=self.rank,
            alpha=self.alpha,
            runs=runs,
            temperature=self.temperature,
        )


def new_routing(*size: int, generator: torch.Generator | None = None) -> Tensor:
    """Routing logits of tasks not seen yet."""
    return torch.empty(*size).uniform_(-ROUTING_INIT, ROUTING_INIT, generator=generator)


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers the parameters hold."""
    return sum(parameter.numel() for parameter in parameters)


def _mix(weights: Tensor | None, bank: Tensor) -> Tensor:
    """Sum the skills of a bank by their weights.

    Args:
        weights: [runs, groups, layers, heads, skills], or None for a bank of one skill.
        bank: [runs or 1, layers, heads, skills, d, r].

    Returns:
        [layers, runs * groups, heads, d, r].
    """
    if weights is None:
        return bank.squeeze(3).transpose(0, 1)
    if len(bank) == 1:
        weights = weights.flatten(0, 1)[None]
    mixed = torch.matmul(weights.permute(0, 2, 3, 1, 4), bank.flatten(-2))  # [runs, layers, heads, groups, d * r]
    unstacked: Tensor = mixed.unflatten(-1, bank.shape[-2:])
    return unstacked.permute(1, 0, 3, 2, 4, 5).flatten(1, 2)


def _required(task_ids: Tensor | None) -> Tensor:
    if task_ids is None:
        raise ValueError("an inventory with routing needs task_ids")
    return task_ids
