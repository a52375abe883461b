"""What a run would do, and why, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mhrctl.running.engine import DvcPipeline


class Action(StrEnum):
    """What a run would do with a stage."""

    RUN = "run"
    RESTORE = "restore"
    MAYBE = "run if changed"
    NOTHING = "unchanged"


class Planned(NamedTuple):
    """What would become of a stage: `MAYBE` where only a stage that it needs runs, which may leave its outputs as they were."""

    name: str
    action: Action
    reasons: tuple[str, ...]


def make_plan(pipeline: DvcPipeline) -> list[Planned]:
    """Say for each stage, in the order of a run, what it would do and why.

    Raises:
        StageError: if DVC cannot tell.
    """
    planned: dict[str, Planned] = {}
    with pipeline.session():
        for name in pipeline.names:
            anew = sorted(up for up in pipeline.needs[name] if planned[up].action is not Action.NOTHING)
            planned[name] = Planned(name, *_decide(pipeline, name, anew))
    return list(planned.values())


def _decide(pipeline: DvcPipeline, name: str, anew: Sequence[str]) -> tuple[Action, tuple[str, ...]]:
    """What a run would do with a stage, before which some of those that it needs run."""
    reasons = pipeline.reasons(name)
    if anew:
        lasting = [reason for reason in reasons if not reason.startswith("dependency ")]
        more = f" and {len(anew) - 1} more" if len(anew) > 1 else ""
        return (Action.RUN if lasting else Action.MAYBE), (*lasting, f"after {anew[0]}{more}")
    if not reasons:
        return Action.NOTHING, ()
    return (Action.RESTORE if pipeline.foresee(name) else Action.RUN), tuple(reasons)
