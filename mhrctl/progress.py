"""The library says that long work goes on, and with which numbers, without printing: what hears it is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

PROGRESS_SECONDS = "MHRCTL_PROGRESS_SECONDS"
"""The variable that says how many seconds there are between lines of progress where there is no terminal; 0 shows none."""
Warn = Callable[[str], None]
"""Shows in one line what goes on in spite of a failure."""


def unheard(message: str) -> None:
    """Show no warning."""


class Bar(Protocol):
    """A bar shows one piece of long work."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps are done, with a note such as the loss."""

    def resume(self, steps: int) -> None:
        """Say that some steps were done before, by a command that was stopped."""


class Track(Protocol):
    """A track begins a piece of long work."""

    def __call__(self, description: str, total: int, *, about: str = "") -> AbstractContextManager[Bar]:
        """Show a bar of `total` steps until the context ends, and say at once what the work is about."""


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass

    def resume(self, steps: int) -> None:
        pass


def silent(description: str, total: int, *, about: str = "") -> AbstractContextManager[Bar]:  # noqa: ARG001 - the protocol's
    """Show nothing."""
    return nullcontext(_Silent())


Asked = Callable[[], bool]
"""Says whether work has been asked to stop, which it does at the next place that it can go on from."""
Stop = Callable[[], AbstractContextManager[Asked]]
"""Begins a piece of work that can be asked to stop: until the context ends, whoever wants it to end asks it."""


def unstoppable() -> AbstractContextManager[Asked]:
    """Never ask work to stop."""
    return nullcontext(lambda: False)


class Recorder(Protocol):
    """A recorder takes a stage's numbers while it works, for whoever watches: they are no input, and no part of a result.

    A stage reports what it has on the host anyway, so that nobody waits for a device on a recorder's account.
    """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step; steps never go back within a name."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Take what the stage has come to."""


class _Unrecorded:
    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def summary(self, values: Mapping[str, float]) -> None:
        pass


unrecorded: Recorder = _Unrecorded()
"""What a stage reports to unless it is given another: nothing is recorded."""
