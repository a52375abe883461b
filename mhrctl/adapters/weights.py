"""Full fine-tuning: the adapter is a copy of all weights of the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter

_DOT = "\N{MIDDLE DOT}"
"""What stands for a dot in the name of a parameter of ours, which must have none."""


class Weights(Adapter):
    """All weights of a backbone, in place of its own.

    A batch has one set of weights, so runs are trained one after the other.

    Attributes:
        aliases: {name of a weight: name of the tensor it shares}, for tied weights too.
        values: the weights, each [runs, 1, ...].
    """

    kind = "weights"

    def __init__(self, sizes: Mapping[str, Sequence[int]], aliases: Mapping[str, str], *, runs: int = 1) -> None:
        super().__init__()
        self.shapes = {}
        self.sizes, self.aliases = {name: list(size) for name, size in sizes.items()}, dict(aliases)
        self.values = nn.ParameterDict({name.replace(".", _DOT): torch.empty(runs, 1, *size) for name, size in sizes.items()})

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: nn.Module) -> Weights:
        """A copy of the backbone's weights, as fp32."""
        names: dict[int, str] = {}
        aliases, sizes = {}, {}
        for name, parameter in backbone.named_parameters(remove_duplicate=False):
            own = names.setdefault(id(parameter), name)
            aliases[name] = own
            if own == name:
                sizes[name] = list(parameter.shape)
        weights = cls(sizes, aliases)
        weights.fill({name: parameter[None] for name, parameter in backbone.named_parameters()})
        return weights

    @property
    def runs(self) -> int:
        """Independent runs."""
        return len(next(iter(self.values.values())))

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """The weights under the backbone's own names.

        Raises:
            ValueError: if there are several runs.
        """
        if self.runs != 1:
            raise ValueError("whole weights are worn by one run at a time")
        return {name: self.values[own.replace(".", _DOT)][0, 0] for name, own in self.aliases.items()}

    def average(self) -> Weights:
        """Itself: there are no skills to average."""
        return self

    @torch.no_grad()
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Weights:
        """One copy a new task."""
        new = Weights(self.sizes, self.aliases, runs=len(seeds))
        for name, value in new.values.items():
            value.copy_(self.values[name].expand_as(value))
            value.requires_grad_(train_skills)
        return new

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """The weights of some runs."""
        chosen = type(self)(self.sizes, self.aliases, runs=len(runs))
        for name, value in chosen.values.items():
            value.copy_(self.values[name][list(runs)])
        return chosen

    def settings(self) -> dict[str, Any]:
        """Sizes, names and runs."""
        return {"sizes": self.sizes, "aliases": self.aliases, "runs": self.runs}

    def tensors(self) -> dict[str, Tensor]:
        """`<weight>`, [runs, ...]."""
        return {name.replace(_DOT, "."): value[:, 0] for name, value in self.values.items()}

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""
        for name, value in self.values.items():
            value.copy_(tensors[name.replace(_DOT, ".")][:, None])

    @torch.no_grad()
    def put_into(self, backbone: nn.Module) -> None:
        """Make these weights the backbone's own."""
        own = dict(backbone.named_parameters())
        for name, tensor in self.tensors().items():
            own[name].copy_(tensor[0])
