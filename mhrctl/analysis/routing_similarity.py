"""Tasks are compared by their routing: which are treated alike, and whether they are those whose inputs are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mhrctl.analysis.routing_measures import Array, Routing

PERMUTATIONS = 999
"""So many renamings of the tasks are behind the p of a correlation between similarities."""
DIGITS = 6
"""A similarity is rounded to so many digits: what is beyond differs between machines, and must not decide an order."""
NEGLIGIBLE = 1e-9
"""A preference of this length is one that rounding has made of none."""

Places = np.ndarray[Any, np.dtype[np.intp]]


def routing_similarity(routing: Routing, *, from_even: bool = True) -> Array:
    """Say how alike tasks are routed: the cosine of their weights of all parts and heads, concatenated; [tasks, tasks].

    Weights are positive, so the cosine of the weights themselves is high for any two tasks that use the skills evenly,
    whichever they prefer. What a task prefers is how its weights differ from even ones, 1 / skills.

    Args:
        routing: of the tasks.
        from_even: compare these differences, so that 0 is unrelated; otherwise the weights themselves.

    Returns:
        Cosines, rounded; 0 with a task that has no preference.
    """
    products = np.zeros((len(routing.tasks), len(routing.tasks)))
    for part in routing.logits:
        weights = routing.weights(part) - (1 / routing.skills if from_even else 0)
        flat = weights.reshape(len(routing.tasks), -1)
        products += flat @ flat.T
    lengths = np.sqrt(products.diagonal())
    lengths = np.where(lengths > NEGLIGIBLE, lengths, np.inf)  # a task without a preference is like no other
    cosines: Array = (products / np.outer(lengths, lengths)).round(DIGITS)
    return cosines


def similarity_order(similarity: Array) -> list[int]:
    """Order tasks so that similar ones are neighbours: the leaves of average linkage, best turned.

    Args:
        similarity: [tasks, tasks], symmetric.
    """
    if len(similarity) < 3:
        return list(range(len(similarity)))
    distances = np.clip(1 - similarity, 0, None)  # rounding may have left a cosine above 1
    np.fill_diagonal(distances, 0)
    condensed = squareform(distances, checks=False)
    return [int(place) for place in leaves_list(linkage(condensed, "average", optimal_ordering=True))]


@dataclass(frozen=True)
class Pair:
    """A pair is two tasks, and how alike they are.

    Attributes:
        tasks: their names; a test task stands first.
        routing: cosine of their routing (see `routing_similarity`).
        inputs: cosine of their inputs by the index; None without one.
    """

    tasks: tuple[str, str]
    routing: float
    inputs: float | None


@dataclass(frozen=True)
class Correlation:
    """A correlation says how far two similarities of tasks agree on which pairs are alike.

    Attributes:
        spearman: rank correlation over the pairs.
        p: share of random renamings of the tasks that correlate at least as well (a one-sided Mantel test).
        pairs: how many.
    """

    spearman: float
    p: float
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """A comparison is of the similarity of tasks by their routing with that by their inputs.

    Attributes:
        encoder: what embedded the inputs.
        correlation: of the two; None if one of them is the same for all pairs.
        of_weights: likewise, of the similarity of the routing weights as they are.
    """

    encoder: str
    correlation: Correlation | None
    of_weights: Correlation | None


def pairs_of(tasks: int, tests: int = 0) -> tuple[Places, Places]:
    """List the pairs that are compared: all, or each of the last `tests` tasks, the test tasks, with each training task."""
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
    from scipy.stats import rankdata  # which takes half a second to import, and an order of tasks does without it

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
    for _ in range(PERMUTATIONS):  # whole tasks are renamed, not pairs: the pairs of one task are not independent
        names = np.concatenate([random.permutation(training), training + random.permutation(tests)])
        as_high += float(ours @ theirs[names[pairs[0]], names[pairs[1]]]) >= spearman - 1e-12
    return Correlation(round(spearman, DIGITS), (1 + as_high) / (1 + PERMUTATIONS), len(pairs[0]))


def most_alike(
    tasks: Sequence[str], similarity: Array, inputs: Array | None = None, *, tests: int = 0, at_most: int | None = None
) -> list[Pair]:
    """List pairs of training tasks, or each test task and the training task that is routed most like it.

    Args:
        tasks: their names.
        similarity: of their routing, [tasks, tasks].
        inputs: of their inputs, likewise, where there is one.
        tests: how many of the tasks, the last ones, are test tasks.
        at_most: how many pairs; None for all.

    Returns:
        The pairs, the most alike first.
    """
    rows, columns = pairs_of(len(tasks), tests)
    order = np.argsort(-similarity[rows, columns], kind="stable")  # stable: equals in the order of the tasks everywhere
    pairs: list[Pair] = []
    seen: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if len(pairs) == at_most:
            break
        if tests and row in seen:
            continue
        seen.add(row)
        of_inputs = None if inputs is None else float(inputs[row, column])
        pairs.append(Pair((tasks[row], tasks[column]), float(similarity[row, column]), of_inputs))
    return pairs


def _standardised(values: Array) -> Array:
    """Make the mean 0 and the length 1; equal values become zeros."""
    centred: Array = values - values.mean()
    return centred / (np.linalg.norm(centred) or 1)
