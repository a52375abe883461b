"""When a training pauses: by the clock, where it is asked to, and of several processes all at the same step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from mhrctl.training.pauses import Pause, Pauses

GO_ON, SAVE, STOP = Pause(saves=False, stops=False), Pause(saves=True, stops=False), Pause(saves=True, stops=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is, for a test to set."""
    now = [0.0]
    monkeypatch.setattr("mhrctl.training.pauses.time.monotonic", lambda: now[0])
    return now


def test_a_checkpoint_is_due_after_so_many_seconds(clock: list[float], accelerator: Accelerator) -> None:
    pauses = Pauses(accelerator, lambda: False, seconds=300)
    came = []
    for step, now in enumerate((1.0, 299.0, 300.0, 301.0, 599.0, 601.0), 1):
        clock[0] = now
        came.append(pauses.after(step))
    assert came == [GO_ON, GO_ON, SAVE, GO_ON, GO_ON, SAVE]


def test_a_training_that_is_asked_to_stop_saves_and_stops(clock: list[float], accelerator: Accelerator) -> None:
    asked = [False]
    pauses = Pauses(accelerator, lambda: asked[0], seconds=300)
    assert pauses.after(1) == GO_ON
    asked[0] = True
    assert pauses.after(2) == STOP
    assert clock == [0.0]


def test_processes_agree_on_the_step_at_which_one_is_asked(clock: list[float]) -> None:
    """Two processes of which the second alone is asked; each exchange has what both say."""
    asked = [False, False]
    exchanges: list[list[torch.Tensor]] = [[], []]

    def process(number: int) -> Pauses:
        def reduce(wishes: torch.Tensor, how: str) -> torch.Tensor:
            assert how == "sum"
            exchanges[number].append(wishes)
            other = wishes.clone()
            other[0] = float(asked[1 - number])
            return wishes + other

        accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"), reduce=reduce)
        return Pauses(cast("Any", accelerator), lambda: asked[number], seconds=300)

    processes = [process(0), process(1)]
    stopped: list[list[int]] = [[], []]
    for step in range(1, 41):
        clock[0] += 0.5
        asked[1] = step >= 11
        for number, pauses in enumerate(processes):
            if pauses.after(step).stops:
                stopped[number].append(step)
    assert stopped[0] == stopped[1]
    assert stopped[0][0] == 14  # steps 1 and 2, then every fourth, which is every two seconds
    assert len(exchanges[0]) == len(exchanges[1]) == 11
