"""How the library tells that long work goes on, without printing: the command line hands it a display."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Bar(Protocol):
    """One piece of long work."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Tell that some steps are done, with a note such as the loss."""


class Track(Protocol):
    """Begins a piece of long work."""

    def __call__(self, description: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar of `total` steps until the context ends."""


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


def silent(description: str, total: int) -> AbstractContextManager[Bar]:  # noqa: ARG001 - the protocol's arguments
    """Show nothing."""
    return nullcontext(_Silent())
