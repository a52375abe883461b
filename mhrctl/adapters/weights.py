"""Full fine-tuning has as its adapter a copy of all weights of the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter, Form, Shapes
from mhrctl.adapters.config import AdapterConfig

_DOT = "\N{MIDDLE DOT}"
"""What stands for a dot in the name of a parameter of ours, which must have none."""


class Weights(Adapter):
    """This adapter is all weights of a backbone, in place of its own.

    A batch has one set of weights, so runs are trained one after the other.

    Attributes:
        aliases: {name of a weight: name of the tensor it shares}, for tied weights too.
        values: the weights, each [runs, 1, ...].
    """

    kind = "weights"
    exports_to: ClassVar[frozenset[Form]] = frozenset({"merge"})
    replaces_weights = True
    has_alignment = False

    def __init__(self, sizes: Mapping[str, Sequence[int]], aliases: Mapping[str, str], *, runs: int = 1) -> None:
        super().__init__()
        self.shapes = {}
        self.sizes, self.aliases = {name: list(size) for name, size in sizes.items()}, dict(aliases)
        self.values = nn.ParameterDict({name.replace(".", _DOT): torch.empty(runs, 1, *size) for name, size in sizes.items()})

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - weights suffice
        """Copy the backbone's weights."""
        return cls.of(backbone)

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: nn.Module) -> Self:
        """Copy the backbone's weights, as fp32."""
        names: dict[int, str] = {}
        aliases, sizes = {}, {}
        for name, parameter in backbone.named_parameters(remove_duplicate=False):
            first_name = names.setdefault(id(parameter), name)
            aliases[name] = first_name
            if first_name == name:
                sizes[name] = list(parameter.shape)
        weights = cls(sizes, aliases)
        weights.fill({name: parameter[None] for name, parameter in backbone.named_parameters()})
        return weights

    @property
    def runs(self) -> int:
        """Independent runs."""
        return len(next(iter(self.values.values())))

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """Return the weights under the backbone's own names.

        Raises:
            ValueError: if there are several runs.
        """
        if self.runs != 1:
            raise ValueError("a batch has the whole weights of one run")
        return {name: self.values[tensor.replace(".", _DOT)][0, 0] for name, tensor in self.aliases.items()}

    def average(self) -> Weights:
        """Return this adapter itself: there are no skills to average."""
        return self

    @torch.no_grad()
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Weights:
        """Copy the weights once for each new task."""
        new = Weights(self.sizes, self.aliases, runs=len(seeds))
        for name, value in new.values.items():
            value.copy_(self.values[name].expand_as(value))
            value.requires_grad_(train_skills)
        return new

    @torch.no_grad()
    def select(self, runs: Sequence[int]) -> Self:
        """Return the weights of some runs."""
        chosen = type(self)(self.sizes, self.aliases, runs=len(runs))
        for name, value in chosen.values.items():
            value.copy_(self.values[name][list(runs)])
        return chosen

    def settings(self) -> dict[str, Any]:
        """Return the sizes, the names and the number of runs."""
        return {"sizes": self.sizes, "aliases": self.aliases, "runs": self.runs}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make weights of these sizes from `settings`."""
        return cls(settings["sizes"], settings["aliases"], runs=settings["runs"])

    def tensors(self) -> dict[str, Tensor]:
        """Give `<weight>`, [runs, ...]."""
        return {name.replace(_DOT, "."): value[:, 0] for name, value in self.values.items()}

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""
        for name, value in self.values.items():
            value.copy_(tensors[name.replace(_DOT, ".")][:, None])

    @torch.no_grad()
    def put_into(self, backbone: nn.Module) -> None:
        """Give the backbone these weights, of the first run."""
        parameters = dict(backbone.named_parameters())
        for name, tensor in self.tensors().items():
            parameters[name].copy_(tensor[0])
