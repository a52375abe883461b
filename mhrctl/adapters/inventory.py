"""The inventory has skills and the routing over them: section 3 of the paper, and docs/recipe.md, sections 3.2 and 3.5.

Layers of one shape share one stacked parameter, and all routing logits are one parameter, so a step mixes the adapters of
every layer with a handful of operations. Artifacts on disk have one tensor a layer (see `mhrctl.adapters.files`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter, Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.granularity import routing_parts
from mhrctl.adapters.merging import Merge
from mhrctl.adapters.mixing import mix
from mhrctl.adapters.routing import coin_gates, new_routing, normalised, of_tasks, sampled
from mhrctl.errors import ParamsError, listed


class Inventory(Adapter):
    """An inventory holds skills (LoRAs) of every adapted layer, and the routing of tasks over them.

    Skills that are shared by all runs, as in the `_z` variants, have one run while the routing has many.

    Attributes:
        lora_A: for each shape of layer, [runs, layers, heads, skills, d_in / heads, rank].
        lora_B: likewise, [runs, layers, heads, skills, rank, d_out / heads].
        routing: logits Z, [runs, parts, tasks, heads * skills], a part being the layers that share a routing; None for one
            skill, which needs no routing, and for random routing.
        part_of: {layer: the part of the model that shares its routing}; empty without learned routing.
        parts: these parts, in the order of the routing's axis.
        interpolation: of the learned routing with the uniform one: 1 is learned, 0 is 1 / skills everywhere.
    """

    kind = "lora"
    is_low_rank = True

    def __init__(self, shapes: Shapes, config: InventoryConfig = InventoryConfig(), *, tasks: int = 1, runs: int = 1) -> None:
        """Make a new inventory.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: its settings.
            tasks: rows of the routing.
            runs: independent inventories.

        Raises:
            ValueError: if the heads do not divide a dimension.
        """
        super().__init__()
        heads, skills, rank = config.heads, config.skills, config.rank
        self.shapes = {name: (d_in, d_out) for name, (d_in, d_out) in shapes.items()}
        for name, shape in self.shapes.items():
            if any(d % heads for d in shape):
                widths = math.gcd(*(d for each in self.shapes.values() for d in each))
                would = listed([str(count) for count in range(1, widths + 1) if widths % count == 0])
                said = f"{heads} heads do not divide layer {name} of shape {shape[0]} x {shape[1]}"
                raise ValueError(f"{said}; all layers can have {would}")
        self.config, self.heads, self.skills, self.rank, self.alpha = config, heads, skills, rank, config.alpha
        self.scaling, self.dropout, self.interpolation = config.alpha / rank, config.dropout, 1.0
        self.stacks: dict[tuple[int, int], list[str]] = {}
        for name, shape in self.shapes.items():
            self.stacks.setdefault(shape, []).append(name)
        self.lora_A = nn.ParameterList()
        self.lora_B = nn.ParameterList()
        for (d_in, d_out), names in self.stacks.items():
            size = (runs, len(names), heads, skills)
            bound = 1 / math.sqrt(3 * d_in)
            self.lora_A.append(nn.Parameter(torch.empty(*size, d_in // heads, rank).uniform_(-bound, bound)))
            self.lora_B.append(nn.Parameter(torch.zeros(*size, rank, d_out // heads)))
        self.part_of: dict[str, str] = {}
        self.parts: list[str] = []
        self.routing: nn.Parameter | None = None
        if skills > 1 and config.routing == "learned":
            self.part_of = routing_parts(self.layers, config.granularity, config.routing_blocks)
            self.parts = list(dict.fromkeys(self.part_of.values()))
            places = {part: place for place, part in enumerate(self.parts)}
            self._part_of_layer = torch.tensor([places[self.part_of[layer]] for layer in self.layers], device="cpu")
            self.routing = nn.Parameter(new_routing(runs, len(self.parts), tasks, heads * skills))

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make a new inventory of what is asked for."""
        return cls(shapes, config.inventory, tasks=config.tasks, runs=config.runs)

    @property
    def layers(self) -> list[str]:
        """Layer names in the order in which they are stacked."""
        return [name for names in self.stacks.values() for name in names]

    @property
    def runs(self) -> int:
        """Independent runs."""
        return max(len(self.lora_A[0]), 0 if self.routing is None else len(self.routing))

    @property
    def tasks(self) -> int:
        """Rows of the routing."""
        return 0 if self.routing is None else self.routing.shape[2]

    @property
    def routes_by(self) -> Literal["none", "task", "token", "input"]:
        """The task, where there are several skills."""
        return "none" if self.skills == 1 else "task"

    @property
    def averageable(self) -> bool:
        """Whether there are several skills."""
        return self.skills > 1

    def banks(self) -> list[nn.Parameter]:
        """Return all A and all B, as they are stacked."""
        return [*self.lora_A, *self.lora_B]

    def routing_parameters(self) -> list[nn.Parameter]:
        """Return Z, if there is any."""
        return [] if self.routing is None else [self.routing]

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose the adapters of each group of a batch.

        Args:
            task_ids: [runs, groups a run], the row of the routing that each group of batch rows uses; ignored for one skill,
                where a run is one group.

        Returns:
            `<layer>.down` [n, r, d_in] and `<layer>.up` [n, r, d_out] with the scaling folded in; the n groups are
            ordered by run.
        """
        return self.slots_of(None if self.skills == 1 else self.routing_weights(required(task_ids)))

    def slots_of(self, weights: Tensor | None) -> dict[str, Tensor]:
        """Mix the skills of every layer.

        Args:
            weights: [runs, groups a run, layers, heads, skills]; None for one skill.

        Returns:
            As `forward`.
        """
        slots: dict[str, Tensor] = {}
        first = 0
        for names, bank_a, bank_b in zip(self.stacks.values(), self.lora_A, self.lora_B, strict=True):
            of_stack = None if weights is None else weights[:, :, first : first + len(names)]
            a = mix(of_stack, bank_a).movedim(-1, 2).flatten(-2)  # [layers, n, r, d_in]
            b = mix(of_stack, bank_b).transpose(2, 3).flatten(-2)
            b = b if self.scaling == 1 else b * self.scaling
            for name, layer_a, layer_b in zip(names, a.unbind(), b.unbind(), strict=True):
                slots[f"{name}.down"], slots[f"{name}.up"] = layer_a, layer_b
            first += len(names)
        return slots

    def routing_weights(self, task_ids: Tensor) -> Tensor:
        """Compute the mixing coefficients a = sigmoid(Z) / (sum over skills of sigmoid(Z) + 1e-12).

        Args:
            task_ids: [runs, groups a run].

        Returns:
            [runs, groups a run, layers, heads, skills], each row summing to one.
        """
        if self.skills == 1:
            raise ValueError("an inventory of one skill has no routing")
        if self.routing is None:
            return self._random_weights(task_ids)
        logits = of_tasks(self.routing, task_ids).transpose(1, 2).unflatten(-1, (self.heads, self.skills))
        if self.training and self.config.temperature is not None:
            weights = sampled(logits, self.config.temperature, straight_through=self.config.straight_through)
        else:
            weights = normalised(logits.sigmoid())
        if self.interpolation < 1:
            weights = self.interpolation * weights + (1 - self.interpolation) / self.skills
        if len(self.parts) < len(self.shapes):
            weights = weights.index_select(2, self._part_of_layer.to(weights.device))
        return weights

    def _random_weights(self, task_ids: Tensor) -> Tensor:
        """While training a fair coin a skill, for each group and layer (no skill at all counts as all); else the mean."""
        gates = torch.ones((*task_ids.shape, len(self.shapes), self.heads, self.skills), device=task_ids.device)
        return normalised(coin_gates(gates) if self.training else gates)

    def mixing(self, task_ids: Tensor) -> dict[str, Tensor]:
        """Return {layer: [tasks, heads, skills]} of some tasks, whose ids are [1, tasks]; empty for one skill."""
        if self.skills == 1:
            return {}
        return dict(zip(self.layers, self.routing_weights(task_ids)[0].unbind(1), strict=True))

    def interpolate(self, learned: float) -> None:
        """Mix the learned routing with the uniform one from now on: 1 is learned, 0 is 1 / skills everywhere."""
        self.interpolation = learned

    def like_average(self) -> Inventory:
        """Make ordinary LoRAs of the average's sizes, or return this inventory if it is its own average."""
        return self if self.skills == 1 and self.heads == 1 else self._plain(runs=len(self.lora_A[0]))

    @torch.no_grad()
    def average(self) -> Inventory:
        """Return the mean of the skills as one ordinary LoRA: A_bar = mean_k A_k, B_bar = mean_k B_k (the `_mu` variants)."""
        merged = self.like_average()
        if merged is self:
            return self
        for target, bank in zip(merged.lora_A, self.lora_A, strict=True):
            target.copy_(bank.mean(3).flatten(2, 3)[:, :, None, None])
        for target, bank in zip(merged.lora_B, self.lora_B, strict=True):
            target.copy_(bank.mean(3).transpose(2, 3).flatten(3)[:, :, None, None])
        return merged

    @torch.no_grad()
    def composed(self) -> Inventory:
        """Return the adapters of each run's first task as ordinary LoRAs, one a run: what one carries away after adaptation."""
        was_training = self.training
        slots = self.eval()(torch.zeros(self.runs, 1, dtype=torch.long, device=self.lora_A[0].device))
        self.train(was_training)
        merged = self._plain(runs=self.runs, times=next(iter(slots.values())).shape[1] // self.rank)
        for names, bank_a, bank_b in zip(merged.stacks.values(), merged.lora_A, merged.lora_B, strict=True):
            a = torch.stack([slots[f"{name}.down"] for name in names], 1)  # [runs, layers, r, d_in]
            b = torch.stack([slots[f"{name}.up"] for name in names], 1) * (self.rank / self.alpha)
            bank_a.copy_(a.transpose(2, 3)[:, :, None, None])
            bank_b.copy_(b[:, :, None, None])
        return merged

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Inventory:
        """Start the adaptation of one run to each of several new tasks, with a new routing row each."""
        return self._begun(seeds, train_skills=train_skills)

    @torch.no_grad()
    def _begun(self, seeds: Sequence[int], *, train_skills: bool) -> Self:
        """An adaptation that begins; see `for_new_tasks`."""
        new = self._like(runs=len(seeds) if train_skills else 1)
        for target, bank in zip(new.banks(), self.banks(), strict=True):
            target.copy_(bank.expand_as(target))
            target.requires_grad_(train_skills)
        if new.routing is not None:
            size = (len(self.parts), 1, self.heads * self.skills)
            routing = torch.empty(len(seeds), *size)
            for row, seed in zip(routing, seeds, strict=True):
                row.copy_(new_routing(*size, generator=torch.Generator().manual_seed(seed)))
            new.routing = nn.Parameter(routing)
        return new

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """Return the inventory of some runs; what is frozen stays so."""
        shared = len(self.lora_A[0]) == 1
        chosen = self._like(runs=1 if shared else len(runs))
        for target, bank in zip(chosen.banks(), self.banks(), strict=True):
            target.copy_(bank if shared else bank[list(runs)])
            target.requires_grad_(bank.requires_grad)
        if self.routing is not None:
            chosen.routing = nn.Parameter(self.routing[list(runs)])
        return chosen

    @torch.no_grad()
    def mean_of_runs(self, groups: Sequence[Sequence[int]]) -> Self:
        """Take the mean of the adapters of each group of runs: one run a group (AdapterSoup)."""
        chosen = self._like(runs=len(groups))
        for target, bank in zip(chosen.banks(), self.banks(), strict=True):
            target.copy_(torch.stack([bank[list(group)].mean(0) for group in groups]))
        return chosen

    @torch.no_grad()
    def mixed_runs(self, weights: Tensor) -> Self:
        """Return weighted sums of all A and of all B."""
        mixed = self._like(runs=len(weights))
        for target, bank in zip(mixed.banks(), self.banks(), strict=True):
            target.copy_(torch.tensordot(weights.to(bank), bank, 1))
        return mixed

    @torch.no_grad()
    def joined_runs(self, runs: Tensor, weights: Tensor) -> Self:
        """Put LoRAs side by side: k become one of k times the rank, with all A stacked, and all B times their weights."""
        count = runs.shape[1]
        config = replace(self.config, rank=count * self.rank, alpha=count * self.alpha)  # whose scaling is that of one
        joined = type(self)(self.shapes, config, runs=len(runs))
        for to_a, to_b, bank_a, bank_b in zip(joined.lora_A, joined.lora_B, self.lora_A, self.lora_B, strict=True):
            weighted = bank_b[runs] * weights.to(bank_b)[..., None, None, None, None, None]
            to_a.copy_(bank_a[runs].movedim(1, -2).flatten(-2))  # [groups, layers, 1, 1, d_in, k * r]
            to_b.copy_(weighted.movedim(1, -3).flatten(-3, -2))
        return joined

    @torch.no_grad()
    def merge_runs(self, groups: Sequence[Mapping[int, str]], merge: Merge) -> Self:
        """Merge the adapters of each group of runs into one run a group; see `mhrctl.adapters.merging`."""
        merged, root = self._like(runs=len(groups)), self.scaling**0.5  # B alone would be as much larger as the scaling is
        for names, *banks in zip(self.stacks.values(), self.lora_A, self.lora_B, merged.lora_A, merged.lora_B, strict=True):
            from_a, from_b, to_a, to_b = (
                bank[:, :, 0, 0] for bank in banks
            )  # [runs, layers, d_in, r], [runs, layers, r, d_out]
            for place, group in enumerate(groups):
                runs = list(group)
                for layer, name in enumerate(names):
                    generators = [generator_of(f"{seed}/{name}") for seed in group.values()]
                    a, b = merge(root * from_a[runs, layer].mT, root * from_b[runs, layer], generators)
                    to_a[place, layer], to_b[place, layer] = a.mT / root, b / root
        return merged

    @torch.no_grad()
    def begin_with(self, loras: Inventory) -> None:
        """Make each skill the LoRA of a run, whose blocks go to the heads; a layer that those have not is left as it is.

        What a skill has of more ranks stays as in a new one, which adds nothing.

        Raises:
            ValueError: if there are not as many.
            ParamsError: if their rank is larger, or they have other layers.
        """
        if loras.runs != self.skills:
            raise ValueError(f"{loras.runs} LoRAs for {self.skills} skills")
        if loras.rank > self.rank:
            raise ParamsError(f"rank {self.rank}: the LoRAs to begin with have {loras.rank}; set it to that or more")
        if other := [name for name in loras.shapes if name not in self.shapes]:
            raise ParamsError(f"targets: leave out layers that the LoRAs to begin with adapt: {listed(other, 3)}")
        to, of, blocks = self.tensors(), loras.tensors(), (self.heads, -1)
        for name in loras.shapes:
            a, b = (of[f"{name}.{matrix}"][:, 0, 0] for matrix in ("lora_A", "lora_B"))  # [skills, d_in, r], [skills, r, d_out]
            to[f"{name}.lora_A"][0, ..., : loras.rank] = a.unflatten(1, blocks).transpose(0, 1)
            scaled = b * (loras.scaling / self.scaling)
            to[f"{name}.lora_B"][0, :, :, : loras.rank] = scaled.unflatten(2, blocks).movedim(2, 0)

    def settings(self) -> dict[str, Any]:
        """Return the shapes, the settings flat, runs and tasks."""
        return inventory_settings(self.shapes, self.config, runs=len(self.lora_A[0]), tasks=self.tasks or 1)

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make an inventory from `settings`."""
        config = {name: value for name, value in settings.items() if name not in ("shapes", "runs", "tasks")}
        return cls(settings["shapes"], InventoryConfig(**config), tasks=settings["tasks"], runs=settings["runs"])

    def tensors(self) -> dict[str, Tensor]:
        """Return `<layer>.lora_A`, `<layer>.lora_B` and `<part>.routing`."""
        tensors: dict[str, Tensor] = {}
        for names, bank_a, bank_b in zip(self.stacks.values(), self.lora_A, self.lora_B, strict=True):
            for place, name in enumerate(names):
                tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"] = bank_a[:, place], bank_b[:, place]
        if self.routing is not None:
            for place, part in enumerate(self.parts):
                tensors[f"{part}.routing"] = self.routing[:, place].unflatten(-1, (self.heads, self.skills))
        return tensors

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors; the routing takes their number of runs and tasks."""
        for names, bank_a, bank_b in zip(self.stacks.values(), self.lora_A, self.lora_B, strict=True):
            bank_a.copy_(torch.stack([tensors[f"{name}.lora_A"] for name in names], 1))
            bank_b.copy_(torch.stack([tensors[f"{name}.lora_B"] for name in names], 1))
        if self.routing is not None:
            self.routing = nn.Parameter(torch.stack([tensors[f"{part}.routing"] for part in self.parts], 1).flatten(-2))

    def _like(self, *, runs: int) -> Self:
        """A new inventory of the same settings for one task."""
        return type(self)(self.shapes, self.config, runs=runs)

    def _plain(self, *, runs: int, times: int = 1) -> Inventory:
        """New ordinary LoRAs for the same layers, of so many times the rank and with the same scaling."""
        config = InventoryConfig(rank=times * self.rank, alpha=times * self.alpha, dropout=self.dropout)
        return Inventory(self.shapes, config, runs=runs)


def inventory_settings(shapes: Shapes, config: InventoryConfig, *, runs: int, tasks: int = 1) -> dict[str, Any]:
    """Return the `settings` of an inventory, which need not be made for them."""
    return {"shapes": dict(shapes), **asdict(config), "runs": runs, "tasks": tasks}


def generator_of(seed: str) -> torch.Generator:
    """Return random numbers that depend on a seed of any form alone."""
    return torch.Generator().manual_seed(random.Random(seed).getrandbits(62))


def required(task_ids: Tensor | None) -> Tensor:
    """Return task ids, which must be given."""
    if task_ids is None:
        raise ValueError("an inventory with routing needs task_ids")
    return task_ids
