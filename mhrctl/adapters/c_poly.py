"""C-Poly is Poly with skills of each task alone beside those that all tasks share (arXiv 2312.03248).

An adapted layer has two LoRAs, added up: the common skills, mixed by the task's routing as Poly's are, and the private skills
of the task, mixed likewise by weights over these. Together they are one LoRA of twice the rank. In a file, beside what an
inventory writes:

    <layer>.private_A         [runs, tasks, skills, d_in, rank]
    <layer>.private_B         [runs, tasks, skills, rank, d_out]
    <part>.private_routing    [runs, tasks, skills], unless there is one

A new task brings private skills that are new, so they add nothing before they are trained; the average, which runs a task
that nothing is known of, is that of the common skills. The paper's text was not read: that A and B are mixed each for
themselves, and that private weights are normalised sigmoids without noise, is as in Poly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.inventory import Inventory, generator_of, required
from mhrctl.adapters.routing import new_routing, normalised, of_tasks


class CPoly(Inventory):
    """C-Poly is an inventory with one head, whose tasks have skills of their own.

    Attributes:
        private_skills: of each task.
        private_A: for each shape of layer, [runs, layers, tasks, skills, d_in, rank].
        private_B: likewise, [runs, layers, tasks, skills, rank, d_out].
        private_routing: logits over them, [runs, parts, tasks, skills]; None for one, which needs no weight.
    """

    kind = "c_poly"
    exports_to = frozenset()  # a task's LoRA leaves, and the average
    has_alignment = False  # tasks train by private skills too
    private_routing: nn.Parameter | None

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, private_skills: int, tasks: int = 1, runs: int = 1) -> None:
        """Make new skills.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the common skills.
            private_skills: of each task.
            tasks: rows of the routing.
            runs: independent ones.
        """
        super().__init__(shapes, config, tasks=tasks, runs=runs)
        self.private_skills = private_skills
        self.renew_private([None] * runs, tasks=tasks)

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make what is asked for."""
        return cls(shapes, config.inventory, tasks=config.tasks, **config.options)

    def routing_parameters(self) -> list[nn.Parameter]:
        """Return the logits over the common skills, and those over private ones where there are several."""
        private = [] if self.private_routing is None else [self.private_routing]
        return super().routing_parameters() + private

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose the adapters of each group of a batch.

        Args:
            task_ids: [runs, groups a run], the task of each group.

        Returns:
            `<layer>.down` [n, 2 r, d_in] and `<layer>.up` [n, 2 r, d_out] with the scaling folded in, the private skills behind
            the common ones; the n groups are ordered by run.
        """
        ids = required(task_ids)
        slots = super().forward(ids)
        weights = self._private_weights(ids)
        first = 0
        for names, *banks in zip(self.stacks.values(), self.private_A, self.private_B, strict=True):
            of_stack = None if weights is None else weights[:, first : first + len(names)]
            a, b = (_mixed(of_stack, of_tasks(bank, ids)) for bank in banks)
            for place, name in enumerate(names):
                down, up = a[:, place].flatten(0, 1).mT, b[:, place].flatten(0, 1) * self.scaling
                slots[f"{name}.down"] = torch.cat([slots[f"{name}.down"], down], 1)
                slots[f"{name}.up"] = torch.cat([slots[f"{name}.up"], up], 1)
            first += len(names)
        return slots

    @torch.no_grad()
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Self:
        """Start the adaptation of one run to each of several new tasks, with a new routing row and new private skills each."""
        new = self._begun(seeds, train_skills=train_skills)
        new.renew_private([generator_of(f"{seed}/private") for seed in seeds], tasks=1)
        return new

    def renew_private(self, generators: Sequence[torch.Generator | None], *, tasks: int) -> None:
        """Take new private skills.

        Args:
            generators: of the random numbers of each run; None is torch's global one.
            tasks: with skills of their own.
        """
        size, rank = (tasks, self.private_skills), self.rank
        self.private_A, self.private_B = nn.ParameterList(), nn.ParameterList()
        for (d_in, d_out), names in self.stacks.items():
            bound = 1 / math.sqrt(3 * d_in)  # as an inventory's
            a = [torch.empty(len(names), *size, d_in, rank).uniform_(-bound, bound, generator=each) for each in generators]
            self.private_A.append(nn.Parameter(torch.stack(a)))
            self.private_B.append(nn.Parameter(torch.zeros(len(a), len(names), *size, rank, d_out)))
        logits = [new_routing(len(self.parts), *size, generator=each) for each in generators]
        self.private_routing = nn.Parameter(torch.stack(logits)) if self.private_skills > 1 else None

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """Return the adapters of some runs; what is frozen stays so."""
        chosen, places = super().select(runs), list(runs)
        chosen.private_A = nn.ParameterList(nn.Parameter(bank[places]) for bank in self.private_A)
        chosen.private_B = nn.ParameterList(nn.Parameter(bank[places]) for bank in self.private_B)
        if self.private_routing is not None:
            chosen.private_routing = nn.Parameter(self.private_routing[places])
        return chosen

    def settings(self) -> dict[str, Any]:
        """Return those of the common skills, and how many private ones a task has."""
        return super().settings() | {"private_skills": self.private_skills}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make skills from `settings`."""
        config = dict(settings)
        shapes = config.pop("shapes")
        sizes = {name: config.pop(name) for name in ("private_skills", "runs", "tasks")}
        return cls(shapes, InventoryConfig(**config), **sizes)

    def tensors(self) -> dict[str, Tensor]:
        """Return what an inventory does, and what tasks have of their own."""
        tensors = super().tensors()
        for names, bank_a, bank_b in zip(self.stacks.values(), self.private_A, self.private_B, strict=True):
            for place, name in enumerate(names):
                tensors[f"{name}.private_A"], tensors[f"{name}.private_B"] = bank_a[:, place], bank_b[:, place]
        if self.private_routing is not None:
            for place, part in enumerate(self.parts):
                tensors[f"{part}.private_routing"] = self.private_routing[:, place]
        return tensors

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors; what tasks have takes their number of runs and tasks."""
        super().fill(tensors)
        self.private_A, self.private_B = (
            nn.ParameterList(_stacked(tensors, names, matrix) for names in self.stacks.values())
            for matrix in ("private_A", "private_B")
        )
        if self.private_routing is not None:
            self.private_routing = _stacked(tensors, self.parts, "private_routing")

    def _private_weights(self, ids: Tensor) -> Tensor | None:
        """The weights of the private skills, [runs, layers, groups, skills]; None for one."""
        if self.private_routing is None:
            return None
        weights = normalised(of_tasks(self.private_routing, ids).sigmoid())
        return weights.index_select(1, self._part_of_layer.to(weights.device))

    def _like(self, *, runs: int) -> Self:
        """New skills of the same settings, for one task."""
        return type(self)(self.shapes, self.config, private_skills=self.private_skills, runs=runs)


def _mixed(weights: Tensor | None, skills: Tensor) -> Tensor:
    """Mix [runs, layers, groups, skills, ...]."""
    return skills.squeeze(3) if weights is None else (weights[..., None, None] * skills).sum(3)


def _stacked(tensors: Mapping[str, Tensor], places: Sequence[str], what: str) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensors[f"{place}.{what}"] for place in places], 1))
