"""MTL-LoRA is one LoRA whose A all tasks share, with several B that each task mixes for itself (arXiv 2410.09437).

For task t an adapted layer gives

    W x + (alpha / r) sum_i softmax(w_t / tau)_i B_i L_t A x

with L_t [r, r] and w_t [n] the task's own in each layer. At the start all L_t are the identity, all B_i zero, and w_t is
uniform within 1 / sqrt(n), as the authors' code has it. In a file:

    <layer>.lora_A         [runs, 1, 1, d_in, rank]
    <layer>.lora_B         [runs, 1, n, rank, d_out]
    <layer>.transform      [runs, tasks, rank, rank], L
    <layer>.mixing         [runs, tasks, n], w

A task's A and B are L_t A and the sum of its B_i: an ordinary LoRA. A new task starts from the mean of the training tasks' L
and w, which is our choice: the paper trains and tests on the same tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.inventory import Inventory, required
from mhrctl.adapters.routing import of_tasks


class MTLLoRA(Inventory):
    """MTL-LoRA is an inventory with one A and several B.

    Attributes:
        ups: n, how many B there are.
        temperature: tau.
        transforms: L, [runs, layers, tasks, rank, rank].
        mixings: w, [runs, layers, tasks, n].
    """

    kind = "mtl_lora"
    exports_to = frozenset()  # a task's LoRA leaves, and the average
    has_alignment: ClassVar[bool] = False  # what tasks share is no part of what each is composed of

    def __init__(
        self, shapes: Shapes, config: InventoryConfig, *, ups: int, temperature: float, tasks: int = 1, runs: int = 1
    ) -> None:
        """Make a new one.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the LoRA.
            ups: how many B there are.
            temperature: of the weights over them.
            tasks: with numbers of their own.
            runs: independent ones.
        """
        super().__init__(shapes, config, runs=runs)
        self.ups, self.temperature = ups, temperature
        self.lora_B = nn.ParameterList(
            nn.Parameter(torch.zeros(runs, len(names), 1, ups, self.rank, d_out)) for (_, d_out), names in self.stacks.items()
        )
        of_each = (runs, len(self.layers), tasks)
        self.transforms = nn.Parameter(torch.eye(self.rank).repeat(*of_each, 1, 1))
        bound = 1 / math.sqrt(ups)
        self.mixings = nn.Parameter(torch.empty(*of_each, ups).uniform_(-bound, bound))

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make what is asked for."""
        asked = config.inventory
        lora = InventoryConfig(rank=asked.rank, alpha=asked.alpha, dropout=asked.dropout)
        return cls(shapes, lora, tasks=config.tasks, **config.options)

    @property
    def runs(self) -> int:
        """Independent runs."""
        return len(self.mixings)

    @property
    def tasks(self) -> int:
        """Tasks with numbers of their own."""
        return self.mixings.shape[2]

    @property
    def routes_by(self) -> Literal["none", "task"]:
        """The task."""
        return "task"

    @property
    def averageable(self) -> bool:
        """Whether tasks have numbers of their own, which they always have."""
        return True

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose the adapters of each group of a batch.

        Args:
            task_ids: [runs, groups a run], the task of each group.

        Returns:
            `<layer>.down` [n, r, d_in] and `<layer>.up` [n, r, d_out] with the scaling folded in; the n groups are ordered by
            run.
        """
        ids = required(task_ids)
        transforms = of_tasks(self.transforms, ids)  # [runs, layers, groups, r, r]
        weights = (of_tasks(self.mixings, ids) / self.temperature).softmax(-1)
        slots: dict[str, Tensor] = {}
        first = 0
        for names, bank_a, bank_b in zip(self.stacks.values(), self.lora_A, self.lora_B, strict=True):
            of_stack = slice(first, first + len(names))
            down = transforms[:, of_stack] @ bank_a[:, :, 0].mT
            up = (weights[:, of_stack] @ bank_b[:, :, 0].flatten(-2)).unflatten(-1, bank_b.shape[-2:]) * self.scaling
            for place, name in enumerate(names):
                slots[f"{name}.down"], slots[f"{name}.up"] = down[:, place].flatten(0, 1), up[:, place].flatten(0, 1)
            first += len(names)
        return slots

    def like_average(self) -> Inventory:
        """Make an ordinary LoRA of the same rank."""
        return self._plain(runs=self.runs)

    def average(self) -> Inventory:
        """Return the LoRA of a task whose numbers are the mean of all tasks'."""
        return self._of_mean_task(self.select(range(self.runs)), self.runs).composed()

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Self:
        """Start the adaptation of one run to each of several new tasks, from the mean of all tasks' numbers."""
        return self._of_mean_task(self._begun(seeds, train_skills=train_skills), len(seeds))

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """Return the adapters of some runs; what is frozen stays so."""
        chosen = super().select(runs)
        chosen.transforms, chosen.mixings = (nn.Parameter(each[list(runs)]) for each in (self.transforms, self.mixings))
        return chosen

    def settings(self) -> dict[str, Any]:
        """Return the shapes, the LoRA's rank, alpha and dropout, how many B there are, runs and tasks."""
        lora = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        sizes = {"runs": len(self.lora_A[0]), "tasks": self.tasks}
        return {"shapes": self.shapes, **lora, "ups": self.ups, "temperature": self.temperature, **sizes}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make one from `settings`."""
        lora = InventoryConfig(rank=settings["rank"], alpha=settings["alpha"], dropout=settings["dropout"])
        rest = {name: settings[name] for name in ("ups", "temperature", "runs", "tasks")}
        return cls(settings["shapes"], lora, **rest)

    def tensors(self) -> dict[str, Tensor]:
        """Return `<layer>.lora_A` and `<layer>.lora_B`, and what tasks have of their own."""
        tensors = super().tensors()
        for place, name in enumerate(self.layers):
            tensors[f"{name}.transform"], tensors[f"{name}.mixing"] = self.transforms[:, place], self.mixings[:, place]
        return tensors

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors; what tasks have takes their number of runs and tasks."""
        super().fill(tensors)
        self.transforms, self.mixings = (
            nn.Parameter(torch.stack([tensors[f"{name}.{what}"] for name in self.layers], 1))
            for what in ("transform", "mixing")
        )

    @torch.no_grad()
    def _of_mean_task(self, adapter: Self, runs: int) -> Self:
        """Give an adapter one task a run, with the mean of this one's tasks."""
        adapter.transforms, adapter.mixings = (
            nn.Parameter(each.mean(2, keepdim=True).repeat(runs // self.runs, *[1] * (each.dim() - 1)))
            for each in (self.transforms, self.mixings)
        )
        return adapter

    def _like(self, *, runs: int) -> Self:
        """A new one of the same settings, for one task."""
        return type(self)(self.shapes, self.config, ups=self.ups, temperature=self.temperature, runs=runs)
