"""What a source hands over."""

from __future__ import annotations

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.task import Role, Suite, Task, TaskCounts


def task(name: str, role: Role = "training", dataset: str = "") -> Task:
    return Task(name, role, "rouge_l", "", [], dataset=dataset)


def test_a_name_is_of_one_task() -> None:
    assert [each.name for each in Suite("toy", [task("a"), task("b", "test")]).tasks] == ["a", "b"]
    with pytest.raises(DataError, match=r"suite toy: task 'a' occurs twice; rename one of them"):
        Suite("toy", [task("a"), task("a", "test")])


def test_what_is_dropped_is_of_each_suite_alone() -> None:
    first, second = Suite("toy", []), Suite("toy", [])
    first.dropped["a"] = "too small"
    assert second.dropped == {}


def test_tasks_are_counted_by_role_and_data_set() -> None:
    tasks = [task("a", dataset="x"), task("b", dataset="x"), task("c"), task("d", "test"), task("e", "backbone")]
    assert TaskCounts.of(tasks) == TaskCounts(training=3, datasets=2, test=1)
    assert TaskCounts.of([]) == TaskCounts(0, 0, 0)
