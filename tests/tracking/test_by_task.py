"""Scores by task, and when their mean comes."""

from __future__ import annotations

from mhrctl.tracking.by_task import ByTask
from tests.tracking.recorders import Remembering


def test_a_mean_comes_with_the_last_task_of_a_step() -> None:
    recorder = Remembering()
    report = ByTask(recorder, tasks=3)
    report(0, {"a": 1.0, "b": 2.0})
    report(2, {"a": 4.0, "b": 6.0})
    report(0, {"c": 6.0})  # the next batch begins at the first step again
    report(2, {"c": 8.0})
    assert recorder.logged == [
        (0, {"validation/a": 1.0, "validation/b": 2.0}),
        (2, {"validation/a": 4.0, "validation/b": 6.0}),
        (0, {"validation/c": 6.0, "validation_mean": 3.0}),
        (2, {"validation/c": 8.0, "validation_mean": 6.0}),
    ]


def test_there_is_no_mean_where_a_task_is_missing() -> None:
    recorder = Remembering()
    report = ByTask(recorder, tasks=2)
    report(0, {"a": 1.0, "b": 2.0})
    report(2, {"b": 6.0})  # the other one was over
    assert recorder.logged[1] == (2, {"validation/b": 6.0})
