"""Interleaved timing and its ratios, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.timing import Ratio, interleave, milliseconds, ratio


class Clock:
    """Moves only when a step moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def step(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            self.ran.append(name)

        return run


def test_steps_are_timed_in_turn_after_their_warm_up() -> None:
    clock = Clock()
    times = interleave({"a": clock.step("a", 2), "b": clock.step("b", 3)}, repetitions=3, warmup=2, clock=clock)
    assert times == {"a": [2, 2, 2], "b": [3, 3, 3]}
    assert "".join(clock.ran) == "aabb" + "ab" + "ba" + "ab"


def test_a_ratio_is_taken_within_repetitions() -> None:
    slow_machine = 10.0
    ours, other = [1.0, 1.0, slow_machine], [2.0, 4.0, 4 * slow_machine]
    assert ratio(ours, other).median == pytest.approx(1 / 4)
    assert ratio(other, ours, scale=3) == Ratio(12.0, 9.0, 12.0)
    assert str(ratio(other, ours)) == "4.00 (3.00 to 4.00)"
    assert str(Ratio(0.5, 0.5, 0.5)) == "0.50"
    assert milliseconds({"a": [0.001, 0.5, 0.002]}) == {"a": 2.0}
