"""The library says that long work goes on, and with which numbers, without printing: what hears it is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Warn = Callable[[str], None]
"""Shows in one line what goes on in spite of a failure."""


def unheard(message: str) -> None:
    """Show no warning."""


class Bar(Protocol):
    """A bar shows one piece of long work."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps are done, with a note such as the loss."""


class Track(Protocol):
    """A track begins a piece of long work."""

    def __call__(self, description: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar of `total` steps until the context ends."""


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


def silent(description: str, total: int) -> AbstractContextManager[Bar]:  # noqa: ARG001 - the protocol's arguments
    """Show nothing."""
    return nullcontext(_Silent())


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
