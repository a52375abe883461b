"""What a run would do, and why, before it does anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mhrctl.running.engine import DvcPipeline

MISSING = object()
SHOWN = 3  # differing values of one section of parameters that are named


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


def difference(name: str, before: Any, now: Any) -> list[str]:  # noqa: ANN401 - any value of a params file
    """Name the values that differ between two trees of parameters, the first few of them."""
    leaves = list(_leaves(name, before, now))
    return leaves[:SHOWN] + ([f"{len(leaves) - SHOWN} more"] if len(leaves) > SHOWN else [])


def _leaves(name: str, before: Any, now: Any) -> Iterator[str]:  # noqa: ANN401
    before, now = _section(before, now), _section(now, before)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _leaves(f"{name}.{key}", before.get(key, MISSING), now.get(key, MISSING))
    elif before is MISSING:
        yield f"{name} added" if now is None or isinstance(now, Mapping) else f"{name} = {now} added"
    elif now is MISSING:
        yield f"{name} removed"
    elif before != now:
        yield f"{name} {before} -> {now}"


def _section(value: Any, beside: Any) -> Any:  # noqa: ANN401
    """A key without a value, beside one that has settings, is a section without any."""
    return {} if value is None and isinstance(beside, Mapping) and beside else value
