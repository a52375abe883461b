"""What every kind of adapter can do: skills with a routing, (IA)3 vectors, whole weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, int]]


class Adapter(nn.Module, ABC):
    """What is trained beside a frozen backbone, for one or several independent runs.

    The first axis of every parameter is the run: independent adapters trained side by side in one batch (one for each test
    task in adaptation, one in pre-training, one a training task where each has its own). The second axis is the layer.

    Attributes:
        kind: its name in files.
        shapes: {layer name: (d_in, d_out)} of the layers that it adapts; empty if it adapts none.
        dropout: of the updates' inputs while training.
    """

    kind: ClassVar[str]
    shapes: Shapes
    dropout: float = 0.0

    @property
    @abstractmethod
    def runs(self) -> int:
        """Independent runs."""

    @abstractmethod
    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose what each group of a batch wears.

        Args:
            task_ids: [runs, groups a run], the row of the routing that each group of batch rows uses; ignored without
                routing, where a run is one group.

        Returns:
            {parameter or slot of the backbone: tensor} for `torch.func.functional_call`; slots have the groups, ordered by
            run, as their first axis.
        """

    @abstractmethod
    def average(self) -> Adapter:
        """The adapter of a task that has no routing yet: the mean of the skills where there are several, else itself."""

    @abstractmethod
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Adapter:
        """Start the adaptation of one run to each of several new tasks, side by side.

        Args:
            seeds: for each run, of what is new in it, so that a run does not depend on the runs beside it.
            train_skills: give every run its own copy of the skills to train; otherwise all share these, frozen.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments that make an adapter of the same shapes, as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Its parameters as a file holds them: one tensor a layer and name, whatever is stacked in memory."""

    @abstractmethod
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""

    @abstractmethod
    def select(self, runs: Sequence[int]) -> Self:
        """The adapter of some runs."""

    def skill_parameters(self) -> list[nn.Parameter]:
        """What is not routing."""
        routing = {id(parameter) for parameter in self.routing_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in routing]

    def routing_parameters(self) -> list[nn.Parameter]:
        """Z, if there is any."""
        return []


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers the parameters hold."""
    return sum(parameter.numel() for parameter in parameters)


def stack_runs(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the parameters of parts that were trained one after the other, along the axis of runs."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
