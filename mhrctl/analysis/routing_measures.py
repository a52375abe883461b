"""A routing is measured: how sparse and how decided it is, and how many skills a task uses.

Sparsity, discreteness and efficiency are what the paper's authors log in training (`PolytroponLog`; docs/recipe.md, section 4).
Their code mixes the heads of a layer into the axis of the skills, which changes the efficiency; here each head is measured by
itself, and a layer's numbers are the means of its heads'. Of one head both are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from scipy.special import entr, expit

from mhrctl.adapters.granularity import by_coder, routing_parts
from mhrctl.artifacts.reading import reading
from mhrctl.errors import ArtifactError

if TYPE_CHECKING:  # a report reads routings without torch, which takes seconds to import
    from mhrctl.adapters.inventory import Inventory

EPS = 1e-12
"""That of `mhrctl.adapters.routing`, which imports torch."""
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Routing:
    """A routing is the logits of some tasks.

    Attributes:
        tasks: their names.
        logits: {part of the model that shares a routing: Z, [tasks, heads, skills]}, in the model's order.
    """

    tasks: tuple[str, ...]
    logits: Mapping[str, Array]

    @classmethod
    def of(cls, adapter: Inventory, tasks: Sequence[str]) -> Routing:
        """Take the routing of an inventory: of the tasks of its one run, or of its runs, one task each.

        Args:
            adapter: the inventory.
            tasks: names of its tasks.

        Raises:
            ArtifactError: if it is of other tasks, or its logits are not all finite.
        """
        tensors = adapter.tensors()
        parts = dict.fromkeys(adapter.part_of[layer] for layer in adapter.shapes)
        return cls._of_logits({part: tensors[f"{part}.routing"].detach().cpu().numpy() for part in parts}, tasks)

    @classmethod
    def read(cls, file: Path, tasks: Sequence[str]) -> Routing:
        """Read the routing of a file of adapters, and nothing else of it.

        Args:
            file: what `mhrctl.adapters.files.save_adapter` has written.
            tasks: as of `of`.

        Raises:
            ArtifactError: as `of`; if there is no learned routing in the file, or it is not as its card says or cannot be read.
        """
        with reading(file), safe_open(file, "np") as content:
            (settings,) = map(json.loads, content.metadata().values())
            parts: Iterable[str] = ()
            if settings.get("skills", 1) > 1 and settings.get("routing") == "learned":
                layers = list(settings["shapes"])
                parts = dict.fromkeys(routing_parts(layers, settings["granularity"], settings["routing_blocks"]).values())
            tensors = {part: content.get_tensor(f"{part}.routing") for part in parts}
        if not tensors:
            raise ArtifactError(f"{file}: has no routing")
        return cls._of_logits(tensors, tasks)

    @classmethod
    def _of_logits(cls, tensors: Mapping[str, Array], tasks: Sequence[str]) -> Routing:
        """A routing of logits, [runs, tasks, heads, skills], of which either are one."""
        logits = {part: z.reshape(-1, *z.shape[2:]).astype(np.float64) for part, z in tensors.items()}
        for part, z in logits.items():
            if len(z) != len(tasks):
                raise ArtifactError(f"routing of {part}: has {len(z)} tasks, expected {len(tasks)}")
            if not np.isfinite(z).all():
                raise ArtifactError(f"routing of {part}: its logits are not all finite; train again with a lower routing_lr")
        return cls(tuple(tasks), logits)

    @property
    def heads(self) -> int:
        """How many routing heads there are."""
        return self._shape[1]

    @property
    def skills(self) -> int:
        """How many skills the inventory has."""
        return self._shape[2]

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(next(iter(self.logits.values())).shape)

    def weights(self, part: str) -> Array:
        """Compute the mixing coefficients a = sigmoid(Z) / sum over skills of sigmoid(Z), [tasks, heads, skills]."""
        return _normalised(expit(self.logits[part]))

    def with_tasks(self, other: Routing) -> Routing:
        """Join these tasks, and then those of another routing of the same parts."""
        joined = {part: np.concatenate([z, other.logits[part]]) for part, z in self.logits.items()}
        return Routing((*self.tasks, *other.tasks), joined)


@dataclass(frozen=True)
class Measures:
    """Measures are the numbers of one head's routing, or means of them.

    Attributes:
        sparsity: the share of gates that are on, mean of floor(sigmoid(Z) + 0.5): 1 is dense.
        discreteness: mean entropy of a gate, in bits: 0 is decided, 1 is undecided.
        efficiency: entropy of the mean use of the skills over tasks, divided by log(skills): 1 uses all alike.
        effective_skills: skills that a task mixes, the exponential of the entropy of its weights, mean over tasks: 1 to all.
    """

    sparsity: float
    discreteness: float
    efficiency: float
    effective_skills: float

    @classmethod
    def mean(cls, several: Iterable[Measures]) -> Measures:
        """Take the mean of each number."""
        return cls(*np.mean([astuple(measures) for measures in several], axis=0).tolist())


def measure_heads(logits: Array) -> tuple[Measures, ...]:
    """Measure each head of a routing.

    Args:
        logits: Z, [tasks, heads, skills], of two skills or more.
    """
    gates = expit(logits)
    sparsity = np.floor(gates + 0.5).mean((0, 2))
    discreteness = (entr(gates) + entr(expit(-logits))).mean((0, 2)) / np.log(2)
    efficiency = _entropy(_normalised(gates.mean(0))) / np.log(logits.shape[2])
    effective = np.exp(_entropy(_normalised(gates))).mean(0)
    rows = np.stack([sparsity, discreteness, efficiency, effective], 1)
    return tuple(Measures(*row) for row in rows.tolist())


@dataclass(frozen=True)
class Inspection:
    """An inspection has the measures of a routing.

    Attributes:
        heads: {part of the model that shares a routing: of each of its heads}, in the model's order.
    """

    heads: Mapping[str, tuple[Measures, ...]]

    @classmethod
    def of(cls, routing: Routing) -> Inspection:
        """Measure all heads of a routing."""
        return cls({part: measure_heads(logits) for part, logits in routing.logits.items()})

    @property
    def parts(self) -> dict[str, Measures]:
        """What each part has in the mean over its heads."""
        return {part: Measures.mean(heads) for part, heads in self.heads.items()}

    @property
    def overall(self) -> Measures:
        """What all parts have in the mean."""
        return Measures.mean(self.parts.values())

    def of_coder(self, coder: str) -> Measures | None:
        """Take the mean over the parts of `encoder` or `decoder`; None if no part is of that coder alone."""
        parts = self.parts
        within = by_coder(list(parts)).get(coder)
        return Measures.mean([parts[part] for part in within]) if within else None


def _normalised(gates: Array) -> Array:
    weights: Array = gates / (gates.sum(-1, keepdims=True) + EPS)
    return weights


def _entropy(weights: Array) -> Array:
    """Compute the entropy in nats, over the last axis."""
    total: Array = entr(weights).sum(-1)
    return total
