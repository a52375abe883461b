"""What a routing has learned: how sparse and how decided it is, how many skills a task uses, and which tasks it treats alike.

Sparsity, discreteness and efficiency are what the paper's authors log in training (`PolytroponLog`; docs/recipe.md, section 4).
Their code mixes the heads of a layer into the axis of the skills, which changes the efficiency; here each head is measured by
itself, and a layer's numbers are the means of its heads'. Of one head both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.special import entr, expit
from scipy.stats import rankdata

from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.routing import EPS
from mhrctl.errors import ArtifactError

PERMUTATIONS = 999
"""Of tasks, behind the p of a correlation between similarities."""
DIGITS = 6
"""Of a similarity: what is beyond differs between machines, and must not decide an order."""
NEGLIGIBLE = 1e-9
"""What rounding makes of a preference that is none."""

Array = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Routing:
    """The logits of some tasks.

    Attributes:
        tasks: their names.
        logits: {part of the model that shares a routing: Z, [tasks, heads, skills]}, in the model's order.
    """

    tasks: tuple[str, ...]
    logits: Mapping[str, Array]

    @classmethod
    def of(cls, adapter: Inventory, tasks: Sequence[str]) -> Routing:
        """The routing of an inventory: of the tasks of its one run, or of its runs, one task each.

        Raises:
            ArtifactError: if it is of other tasks, or its logits are not all finite.
        """
        tensors = adapter.tensors()
        groups = dict.fromkeys(adapter.part_of[layer] for layer in adapter.shapes)
        logits = {group: tensors[f"{group}.routing"].detach().flatten(0, 1).double().cpu().numpy() for group in groups}
        for group, own in logits.items():
            if len(own) != len(tasks):
                raise ArtifactError(f"routing of {group}: has {len(own)} tasks, expected {len(tasks)}")
            if not np.isfinite(own).all():
                raise ArtifactError(f"routing of {group}: its logits are not all finite; train again with a lower routing_lr")
        return cls(tuple(tasks), logits)

    @property
    def heads(self) -> int:
        """Routing heads."""
        return self._shape[1]

    @property
    def skills(self) -> int:
        """Skills of the inventory."""
        return self._shape[2]

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(next(iter(self.logits.values())).shape)

    def weights(self, group: str) -> Array:
        """Mixing coefficients a = sigmoid(Z) / sum over skills of sigmoid(Z), [tasks, heads, skills]."""
        return _normalised(expit(self.logits[group]))

    def with_tasks(self, other: Routing) -> Routing:
        """These tasks, and then those of another routing of the same parts."""
        joined = {group: np.concatenate([own, other.logits[group]]) for group, own in self.logits.items()}
        return Routing((*self.tasks, *other.tasks), joined)


@dataclass(frozen=True)
class Measures:
    """Numbers of one head's routing, or means of them.

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
        """The mean of each number."""
        return cls(*np.mean([astuple(own) for own in several], axis=0).tolist())


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
    """The measures of a routing.

    Attributes:
        heads: {part of the model that shares a routing: of each of its heads}, in the model's order.
    """

    heads: Mapping[str, tuple[Measures, ...]]

    @classmethod
    def of(cls, routing: Routing) -> Inspection:
        """Measure all heads of a routing."""
        return cls({group: measure_heads(logits) for group, logits in routing.logits.items()})

    @property
    def groups(self) -> dict[str, Measures]:
        """{part: mean over its heads}."""
        return {group: Measures.mean(heads) for group, heads in self.heads.items()}

    @property
    def overall(self) -> Measures:
        """The mean over all parts."""
        return Measures.mean(self.groups.values())

    def within(self, coder: str) -> dict[str, Measures]:
        """The parts of `encoder` or `decoder`; empty if the routing has none of its own there."""
        return {group: own for group, own in self.groups.items() if coder in group.split(".")}

    def of_coder(self, coder: str) -> Measures | None:
        """The mean over the parts of `encoder` or `decoder`; None if the routing has none of its own there."""
        own = self.within(coder)
        return Measures.mean(own.values()) if own else None


def routing_similarity(routing: Routing, *, from_even: bool = True) -> Array:
    """How alike tasks are routed: the cosine of their weights of all parts and heads, concatenated; [tasks, tasks].

    Weights are positive, so the cosine of the weights themselves is high for any two tasks that use the skills evenly,
    whichever they prefer. What a task prefers is how its weights differ from even ones, 1 / skills.

    Args:
        routing: of the tasks.
        from_even: compare these differences, so that 0 is unrelated; otherwise the weights themselves.

    Returns:
        Cosines, rounded; 0 with a task that has no preference.
    """
    products = np.zeros((len(routing.tasks), len(routing.tasks)))
    for group in routing.logits:
        weights = routing.weights(group) - (1 / routing.skills if from_even else 0)
        flat = weights.reshape(len(routing.tasks), -1)
        products += flat @ flat.T
    lengths = np.sqrt(products.diagonal())
    lengths = np.where(lengths > NEGLIGIBLE, lengths, np.inf)
    cosines: Array = (products / np.outer(lengths, lengths)).round(DIGITS)
    return cosines


def similarity_order(similarity: Array) -> list[int]:
    """An order of tasks in which similar ones are neighbours: the leaves of average linkage, best turned.

    Args:
        similarity: [tasks, tasks], symmetric.
    """
    if len(similarity) < 3:
        return list(range(len(similarity)))
    distances = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(distances, 0)
    condensed = squareform(distances, checks=False)
    return [int(place) for place in leaves_list(linkage(condensed, "average", optimal_ordering=True))]


@dataclass(frozen=True)
class Correlation:
    """How far two similarities of tasks agree on which pairs are alike.

    Attributes:
        spearman: rank correlation over the pairs.
        p: share of random renamings of the tasks that correlate at least as well (a one-sided Mantel test).
        pairs: how many.
    """

    spearman: float
    p: float
    pairs: int


def pairs_of(tasks: int, tests: int = 0) -> tuple[Places, Places]:
    """The pairs that are compared: all, or each of the last `tests` tasks, the test tasks, with each training task."""
    if not tests:
        first, second = np.triu_indices(tasks, 1)
        return first, second
    rows, columns = np.meshgrid(np.arange(tasks - tests, tasks), np.arange(tasks - tests), indexing="ij")
    return rows.ravel(), columns.ravel()


def correlate(one: Array, other: Array, tests: int = 0) -> Correlation | None:
    """Correlate two similarities of the same tasks over pairs.

    Args:
        one: [tasks, tasks], symmetric.
        other: [tasks, tasks], symmetric.
        tests: how many of the tasks, the last ones, are test tasks (see `pairs_of`).

    Returns:
        None if one of them is the same for all pairs.
    """
    pairs = pairs_of(len(one), tests)
    if not len(pairs[0]):
        return None
    ours = _standardised(rankdata(one[pairs]))
    theirs = np.zeros_like(other)
    theirs[pairs] = _standardised(rankdata(other[pairs]))
    theirs += theirs.T
    if not ours.any() or not theirs.any():
        return None
    spearman = float(ours @ theirs[pairs])
    random = np.random.default_rng(0)
    training = len(one) - tests
    as_high = 0
    for _ in range(PERMUTATIONS):
        names = np.concatenate([random.permutation(training), training + random.permutation(tests)])
        as_high += float(ours @ theirs[names[pairs[0]], names[pairs[1]]]) >= spearman - 1e-12
    return Correlation(round(spearman, DIGITS), (1 + as_high) / (1 + PERMUTATIONS), len(pairs[0]))


def _normalised(gates: Array) -> Array:
    weights: Array = gates / (gates.sum(-1, keepdims=True) + EPS)
    return weights


def _entropy(weights: Array) -> Array:
    """In nats, over the last axis."""
    total: Array = entr(weights).sum(-1)
    return total


def _standardised(values: Array) -> Array:
    """Of mean 0 and length 1; zeros if all are equal."""
    centred: Array = values - values.mean()
    return centred / (np.linalg.norm(centred) or 1)
