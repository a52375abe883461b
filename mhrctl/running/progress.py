"""Where a run is: the state of each stage, and the time that is left."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from mhrctl.artifacts.writing import read_json
from mhrctl.errors import MhrctlError
from mhrctl.running.pipeline import State, command_of, stage_of

ENDED = frozenset(State) - {State.WAITING, State.RUNNING}
STOPPED = "stopped"
"""The note of a stage whose job was ended with the run."""
BAD = frozenset({State.FAILED, State.BLOCKED})


@dataclass
class Entry:
    """One stage of a run."""

    state: State = State.WAITING
    started: float | None = None  # when its command did, in seconds since the epoch
    seconds: float | None = None  # what its command took, once it has ended
    note: str = ""  # what there is to say of it, in one line
    log: Path | None = None  # output of its command


@dataclass
class Progress:
    """All stages of a run, in its order."""

    stages: dict[str, Entry]
    earlier: Mapping[str, float] = field(default_factory=dict)  # {stage of dvc.yaml: seconds that earlier runs took, about}
    stopping: bool = False  # whether the run has been asked to end

    @classmethod
    def of(cls, names: Iterable[str], earlier: Mapping[str, float]) -> Progress:
        """The beginning of a run."""
        return cls({name: Entry() for name in names}, earlier)

    def count(self) -> Counter[State]:
        """Stages by state."""
        return Counter(entry.state for entry in self.stages.values())

    def by_stage(self) -> dict[str, Counter[State]]:
        """Cells by stage of dvc.yaml and state."""
        counts: dict[str, Counter[State]] = defaultdict(Counter)
        for name, entry in self.stages.items():
            counts[stage_of(name)][entry.state] += 1
        return counts

    def running(self) -> dict[str, Entry]:
        """The stages whose commands run."""
        return self._among({State.RUNNING})

    def bad(self) -> dict[str, Entry]:
        """What failed, and what was blocked by it."""
        return self._among(BAD)

    def _among(self, states: Collection[State]) -> dict[str, Entry]:
        return {name: entry for name, entry in self.stages.items() if entry.state in states}

    def seconds_left(self, at_once: int) -> tuple[float, bool] | None:
        """Estimate the time left, if no stage that waits is unchanged and so many jobs run at once.

        Returns:
            Seconds, and whether each stage's time is known (else it is longer); None if none is.
        """
        taken = defaultdict(list)
        for name, entry in self._among({State.DONE}).items():
            if entry.seconds is not None:
                taken[stage_of(name)].append(entry.seconds)
        expected = {**self.earlier, **{stage: fmean(seconds) for stage, seconds in taken.items()}}
        left = self._among({State.WAITING, State.RUNNING})
        work = []
        for name, entry in left.items():
            seconds = expected.get(stage_of(name), expected.get(command_of(stage_of(name))))
            if seconds is not None:
                elapsed = time.time() - entry.started if entry.state is State.RUNNING and entry.started else 0.0
                work.append(max(0.0, seconds - elapsed))
        if not work:
            return None
        return max(sum(work) / min(at_once, len(left)), *work), len(work) == len(left)


def earlier_seconds(folder: Path) -> dict[str, float]:
    """Read how long stages took when they last ran, on average, from their logs: <stage>.json or <stage>-<cell>.json."""
    taken = defaultdict(list)
    for path in folder.glob("*.json"):
        if (seconds := logged_seconds(path)) is not None:
            taken[command_of(path.stem)].append(seconds)
    return {stage: fmean(seconds) for stage, seconds in taken.items()}


def logged_seconds(path: Path) -> float | None:
    """Read how long a stage took when it last ran, from its log; None if there is none, or it says nothing."""
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError, MhrctlError):
        seconds = float(read_json(path)["seconds"]) if path.is_file() else math.nan
        if 0 <= seconds < math.inf:
            return seconds
    return None
