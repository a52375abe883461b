"""Recorders for tests: one that remembers, and rows of the table that open it."""

from __future__ import annotations

from collections.abc import Mapping

from mhrctl.tracking.backend import Backend, Subject


class Remembering:
    """Remembers what it was given; fails where it is asked to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summaries: list[dict[str, float]] = []
        self.closed = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._may_fail("log")
        self.logged.append((step, dict(values)))

    def summary(self, values: Mapping[str, float]) -> None:
        self._may_fail("summary")
        self.summaries.append(dict(values))

    def close(self) -> None:
        self.closed += 1
        self._may_fail("close")

    def _may_fail(self, what: str) -> None:
        if self.fails == what:
            raise ConnectionError(f"{what} was lost\nand more lines")


def row(recorder: Remembering) -> Backend:
    """A row of the table that opens a recorder, or fails to."""

    def opens(subject: Subject) -> Remembering:
        if recorder.fails == "open":
            raise ValueError(f"no key for {subject.name}")
        return recorder

    return Backend("json", "json", opens)
