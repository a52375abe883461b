"""A tracker of accelerate's as a recorder."""

from __future__ import annotations

from typing import Any

from mhrctl.tracking.accelerated import Accelerated


class Tracker:
    """Remembers how it is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self) -> None:
        self.calls.append("start")

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


def test_a_summary_comes_at_the_last_step_under_a_name_of_its_own() -> None:
    tracker = Tracker()
    recorder = Accelerated(tracker)
    recorder.log(2, {"loss": 1.0})
    recorder.log(4, {"loss": 0.5})
    recorder.summary({"loss": 0.4})
    recorder.close()
    assert tracker.calls == ["start", (2, {"loss": 1.0}), (4, {"loss": 0.5}), (4, {"summary/loss": 0.4}), "finish"]
