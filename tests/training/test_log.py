"""The log of a training: tokens and speed, whole or resumed, alone or after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mhrctl.training.log import LOG_COLUMNS, TrainingLog, counted_on, is_due


class Heard:
    """What a recorder was told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def summary(self, values: Mapping[str, float]) -> None:
        raise AssertionError(values)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is, for a test to set."""
    now = [0.0]
    monkeypatch.setattr("mhrctl.training.log.time.monotonic", lambda: now[0])
    return now


def begun(heard: Heard, *more: str, rows: Sequence[list[Any]] = (), first: int = 0, before: Sequence[Any] = ()) -> TrainingLog:
    """A log of steps that see ten tokens times their number."""
    columns = (*LOG_COLUMNS, *more)
    return TrainingLog(columns, heard, rows=list(rows), first=first, tokens_of=lambda step: 10 * step, before=before)


def test_a_row_has_the_tokens_and_the_recorder_their_speed(clock: list[float]) -> None:
    heard = Heard()
    written = begun(heard, "validation_loss")
    written.count(1)
    written.count(2)
    clock[0] = 3.0
    with written.row(2, 1.234567, [0.5]) as row:
        clock[0] = 100.0  # what is measured is no time of training
        row.append(None)
    written.count(3)
    clock[0] = 102.0
    with written.row(3, 1.0, [0.25, 0.1]) as row:
        row.append(0.75)
    assert written.rows == [[2, 1.23457, 0.5, 0.0, 30, None], [3, 1.0, 0.25, 0.1, 60, 0.75]]
    assert heard.rows == [
        (2, {"loss": 1.23457, "lr": 0.5, "routing_lr": 0.0, "tokens": 30, "tokens_per_second": 10.0}),
        (3, {"loss": 1.0, "lr": 0.25, "routing_lr": 0.1, "tokens": 60, "validation_loss": 0.75, "tokens_per_second": 15.0}),
    ]


def test_a_resumed_log_counts_what_was_seen_since_its_last_row(clock: list[float]) -> None:
    resumed = begun(Heard(), rows=[[2, 1.0, 0.5, 0.0, 30]], first=4)  # steps 3 and 4 were taken after that row
    clock[0] = 1.0
    resumed.count(5)
    with resumed.row(5, 1.0, [0.5]):
        pass
    assert [row[-1] for row in resumed.rows] == [30, 150]


def test_a_log_after_another_is_recorded_as_its_continuation(clock: list[float]) -> None:
    heard = Heard()
    second = begun(heard, "validation_loss", before=[8, 0.1, 0.5, 0.0, 1000, 0.3])
    clock[0] = 1.0
    second.count(1)
    with second.row(1, 2.0, [0.5]) as row:
        row.append(0.2)
    assert second.rows == [[1, 2.0, 0.5, 0.0, 10, 0.2]]
    assert [(step, values["tokens"], values["validation_loss"]) for step, values in heard.rows] == [(9, 1010, 0.2)]
    assert counted_on(second.rows[0], [8, 0.1, 0.5, 0.0, 1000, 0.3]) == [9, 2.0, 0.5, 0.0, 1010, 0.2]
    assert counted_on(second.rows[0], []) == second.rows[0]


def test_what_is_done_every_so_many_steps_is_done_in_the_last() -> None:
    assert [step for step in range(1, 9) if is_due(step, 3, 8)] == [3, 6, 8]
    assert not any(is_due(step, 0, 8) for step in range(1, 9))
