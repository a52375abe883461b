"""What must be kept of a pre-training is its skills; the routing of its training tasks, trained beside them, is of no more use.

The paper's multi-task parameters are the skills alone (appendix A.1), and scores files have both in one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhrctl.config.methods import METHODS
from mhrctl.report.results import Group, Results

Shared = tuple[str, int | None, str, int]
"""What methods with the same pre-training have in common, the numbers trained on all tasks among it."""


def kept_skills(results: Results) -> Mapping[str, int]:
    """Return {label: numbers in the skills alone} of the methods of which a new task has a routing; {} if it cannot be known.

    With S numbers in the skills, R in the routing of a task, and T training tasks, S + T R are trained on all tasks, and for a
    new task S + R, or R where the routing is all. Two methods that share a pre-training thus give T, which all have in common.
    """
    routed = [group for group in results.adapted if METHODS[group.method].adapts_routing]
    tasks = _training_tasks(routed)
    return {group.label: _skills(group, tasks) for group in routed} if tasks else {}


def _training_tasks(groups: Sequence[Group]) -> int | None:
    """How many tasks there were in pre-training, at least two; None if no two methods give it, or not all the same."""
    whole = {_shared(group): group.first.parameters.adaptation for group in groups if not _is_routing_alone(group)}
    numbers = set[float]()
    for group in groups:
        if _is_routing_alone(group) and (of_task := whole.get(_shared(group))):
            parameters = group.first.parameters
            numbers.add(1 + (parameters.multi_task - of_task) / parameters.adaptation)
    number = numbers.pop() if len(numbers) == 1 else 0
    return int(number) if number >= 2 and number == int(number) else None


def _skills(group: Group, tasks: int) -> int:
    parameters = group.first.parameters
    if _is_routing_alone(group):
        return parameters.multi_task - tasks * parameters.adaptation
    return parameters.adaptation - (parameters.multi_task - parameters.adaptation) // (tasks - 1)


def _is_routing_alone(group: Group) -> bool:
    return METHODS[group.method].trains_routing_alone


def _shared(group: Group) -> Shared:
    return METHODS[group.method].pretrain, group.heads, group.variant, group.first.parameters.multi_task
