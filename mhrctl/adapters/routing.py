"""Routing weights are made from logits, section 3 of the paper; they are sampled here, and fade into uniform ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-12
ROUTING_INIT = 1e-3
"""New routing logits are uniform on (-1e-3, 1e-3): nearly the average of the skills."""


def new_routing(*size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return routing logits of tasks that have not been seen yet."""
    return torch.empty(*size).uniform_(-ROUTING_INIT, ROUTING_INIT, generator=generator)


def of_tasks(parameter: Tensor, task_ids: Tensor) -> Tensor:
    """Look up what tasks have of a parameter.

    Args:
        parameter: [runs, parts, tasks, ...].
        task_ids: [runs, groups a run], the task of each group.

    Returns:
        [runs, parts, groups a run, ...].
    """
    runs, parts, tasks = parameter.shape[:3]
    first = torch.arange(0, runs * parts * tasks, tasks, device=task_ids.device).view(runs, parts, 1)
    # not indexing, whose gradient adds up in no fixed order on several threads
    rows = F.embedding(first + task_ids[:, None], parameter.flatten(0, 2).flatten(1))
    looked_up: Tensor = rows.unflatten(-1, parameter.shape[3:])
    return looked_up


def normalised(gates: Tensor) -> Tensor:
    """Compute the mixing coefficients of gates: each divided by the sum over skills, the last axis."""
    return gates / (gates.sum(-1, keepdim=True) + EPS)


def sampled(logits: Tensor, temperature: float, *, straight_through: bool) -> Tensor:
    """Mix by gates from a relaxed Bernoulli, or by their rounding, which keeps the gradient of the gates."""
    noise = torch.rand_like(logits).logit(eps=1e-7)  # logistic
    gates = torch.sigmoid((logits + noise) / temperature)
    weights = normalised(gates)
    return weights + (normalised(gates.round()) - weights).detach() if straight_through else weights


def coin_gates(like: Tensor) -> Tensor:
    """Toss a fair coin for each skill, the last axis; where no skill is drawn at all, all are."""
    drawn = torch.rand_like(like).round()
    return torch.where(drawn.any(-1, keepdim=True), drawn, like)


def uniform_interpolation(step: int, *, steps: int, last: int) -> float:
    """Return how much of the routing is still the learned one: 1 until the `last` steps, then cos(pi/2 n/last) in their n-th.

    Args:
        step: steps taken so far.
        steps: in all.
        last: in which the learned routing fades into the uniform one; 0 never fades.
    """
    into = step + 1 - (steps - last)
    return math.cos(math.pi / 2 * into / last) if last and into > 0 else 1.0
