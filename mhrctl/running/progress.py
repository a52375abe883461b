"""Where a run is: the state of each stage, and the time that is left."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from mhrctl.artifacts.writing import read_json
from mhrctl.running.pipeline import State, command_of, stage_of

ENDED = frozenset(State) - {State.WAITING, State.RUNNING}
BAD = frozenset({State.FAILED, State.BLOCKED})


@dataclass
class Entry:
    """One stage of a run.

    Attributes:
        state: where it is.
        started: when its command did, in seconds since the epoch.
        seconds: what its command took, once it has ended.
        note: what there is to say of it, in one line.
        log: output of its command.
    """

    state: State = State.WAITING
    started: float | None = None
    seconds: float | None = None
    note: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Progress:
    """All stages of a run, in its order.

    Attributes:
        stages: {stage: where it is}.
        earlier: {stage of dvc.yaml: seconds that it took in earlier runs, about}.
    """

    stages: dict[str, Entry]
    earlier: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str], earlier: Mapping[str, float]) -> Progress:
        """The beginning of a run."""
        return cls({name: Entry() for name in names}, earlier)

    def count(self) -> Counter[State]:
        """Stages by state."""
        return Counter(entry.state for entry in self.stages.values())

    def by_stage(self) -> dict[str, Counter[State]]:
        """Cells by stage of dvc.yaml and state."""
        counts: dict[str, Counter[State]] = {}
        for name, entry in self.stages.items():
            counts.setdefault(stage_of(name), Counter())[entry.state] += 1
        return counts

    def running(self) -> dict[str, Entry]:
        """The stages whose commands run."""
        return {name: entry for name, entry in self.stages.items() if entry.state is State.RUNNING}

    def bad(self) -> dict[str, Entry]:
        """What failed, and what was blocked by it."""
        return {name: entry for name, entry in self.stages.items() if entry.state in BAD}

    def seconds_left(self, at_once: int) -> tuple[float, bool] | None:
        """Estimate the time left, if no stage that waits is unchanged.

        Args:
            at_once: jobs that run at once.

        Returns:
            Seconds, and whether each stage's time is known (else it is longer); None if none is.
        """
        taken = defaultdict(list)
        for name, entry in self.stages.items():
            if entry.state is State.DONE and entry.seconds is not None:
                taken[stage_of(name)].append(entry.seconds)
        expected = {**self.earlier, **{stage: fmean(seconds) for stage, seconds in taken.items()}}
        left = {name: entry for name, entry in self.stages.items() if entry.state not in ENDED}
        work = []
        for name, entry in left.items():
            stage = stage_of(name)
            seconds = expected.get(stage, expected.get(command_of(stage)))
            if seconds is not None:
                work.append(max(0.0, seconds - _elapsed(entry)))
        if not work:
            return None
        return max(sum(work) / min(at_once, len(left)), *work), len(work) == len(left)


def earlier_seconds(folder: Path) -> dict[str, float]:
    """Read how long stages took when they last ran.

    Args:
        folder: the logs of runs, <stage>.json or <stage>-<cell>.json.

    Returns:
        {stage: mean seconds}.
    """
    taken = defaultdict(list)
    for path in folder.glob("*.json"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            seconds = float(read_json(path)["seconds"])
            taken[command_of(path.stem)].append(seconds)
    return {stage: fmean(seconds) for stage, seconds in taken.items()}


def _elapsed(entry: Entry) -> float:
    return time.time() - entry.started if entry.state is State.RUNNING and entry.started else 0.0
