"""How a task's examples are divided, and what is kept apart by its text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mhrctl.data.division import Division, divide
from mhrctl.data.leaks import TestTexts
from mhrctl.data.splits import held_out_size, training_split
from mhrctl.suites.task import Example, Role, Split, Task

NO_TESTS = TestTexts()


def examples(numbers: Sequence[int], split: Split | None = None) -> list[Example]:
    return [Example(f"{place}", f"say {number}", (str(number),), split=split) for place, number in enumerate(numbers)]


def task(role: Role, rows: list[Example], **options: Any) -> Task:
    return Task("t", role, "rouge_l", "", rows, **options)


def inputs(division: Division, split: Split) -> list[str]:
    return [example.input for example in division.splits[split]]


def test_distinct_texts_are_divided_by_the_rules_alone() -> None:
    rows = examples(range(60))
    test = divide(task("test", rows), size=15, seed=1, tests=NO_TESTS)
    assert test == Division({"train": [], "validation": [], "test": rows[:15], "pool": rows[15:]})
    train, validation = training_split(rows, size=15, seed=1)
    training = divide(task("training", rows), size=15, seed=1, tests=TestTexts.of(examples([100])))
    assert training == Division({"train": train, "validation": validation})
    assert training.used == {"train": 15, "validation": len(validation)}
    assert divide(task("backbone", rows), size=15, seed=1, tests=NO_TESTS) == Division({"train": rows})


def test_a_pool_has_no_text_of_the_test_set_and_each_once() -> None:
    rows = examples([*range(30), *range(5), 29, 28, 29])
    division = divide(task("test", rows), size=10, seed=1, tests=NO_TESTS)
    assert inputs(division, "test") == [f"say {number}" for number in range(10)]
    assert inputs(division, "pool") == [f"say {number}" for number in range(10, 30)]
    assert (division.leaks, division.repeated, division.repeated_tests, division.dropped) == (5, 3, 0, "")


def test_a_test_set_keeps_its_repeats_which_are_counted() -> None:
    division = divide(task("test", examples([0, 0, 0, *range(1, 20)])), size=4, seed=1, tests=NO_TESTS)
    assert inputs(division, "test") == ["say 0", "say 0", "say 0", "say 1"]
    assert (division.repeated_tests, division.leaks) == (2, 0)


def test_a_task_of_few_texts_is_divided_by_them() -> None:
    division = divide(task("test", examples([*range(20)] * 3)), size=100, seed=1, tests=NO_TESTS)
    assert inputs(division, "test") == [f"say {number}" for number in range(6)]
    assert inputs(division, "pool") == [f"say {number}" for number in range(6, 20)]
    assert (division.leaks, division.repeated, division.repeated_tests, division.dropped) == (0, 40, 0, "")


def test_a_task_that_is_repeats_is_dropped_with_the_reason() -> None:
    division = divide(task("test", examples([1, 2] * 30)), size=100, seed=1, tests=NO_TESTS)
    assert division.dropped == "has too few examples (60) for train, validation and test: 40 of 60 are equal to test examples"
    named = examples([1, 1, 2], "test") + examples([1, 1, 2])  # the source says what is tested
    assert divide(task("test", named), size=9, seed=1, tests=NO_TESTS).dropped.endswith("3 of 6 are equal to test examples")
    rows = examples(range(9))
    training = divide(task("training", rows), size=9, seed=1, tests=TestTexts.of(rows))
    assert training.dropped == "has no example to train on: 9 of 9 are equal to test examples"
    assert divide(task("training", []), size=9, seed=1, tests=NO_TESTS).dropped == "has no example to train on"


def test_what_is_trained_on_has_no_text_of_any_test_task() -> None:
    tests = TestTexts.of(examples([3, 4]))
    for role in ("training", "backbone"):
        division = divide(task(role, examples(range(40))), size=100, seed=1, tests=tests)
        used = [text for split in division.splits for text in inputs(division, split)]
        assert len(used) == 38
        assert {"say 3", "say 4"}.isdisjoint(used)
        assert division.leaks == 2


def test_splits_that_the_user_gives_lose_what_is_tested() -> None:
    rows = examples([1, 2, 3], "train") + examples([1, 4], "validation") + examples([1, 5], "test") + examples([2, 4, 6, 5])
    division = divide(task("test", rows), size=9, seed=1, tests=NO_TESTS)
    assert {split: inputs(division, split) for split in division.splits} == {
        "train": ["say 2", "say 3"],
        "validation": ["say 4"],
        "test": ["say 1", "say 5"],
        "pool": ["say 6"],
    }
    assert (division.leaks, division.repeated) == (3, 2)


def test_few_shot_sets_that_are_given_stay_whole_and_are_counted() -> None:
    rows = examples([1, 2], "train") + examples([1, 1, 5], "test")
    division = divide(task("test", rows, keeps_splits=True), size=1, seed=1, tests=NO_TESTS)
    assert {split: len(kept) for split, kept in division.splits.items()} == {"train": 2, "validation": 0, "test": 3}
    assert (division.leaks, division.given_leaks, division.repeated_tests) == (0, 1, 1)


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 20), st.integers(0, 3))
def test_no_text_stands_on_both_sides_and_none_is_lost(numbers: list[int], size: int, seed: int) -> None:
    rows = examples(numbers)
    division = divide(task("test", rows), size=size, seed=seed, tests=NO_TESTS)
    test, pool = inputs(division, "test"), inputs(division, "pool")
    once = list(dict.fromkeys(row.input for row in rows))
    is_usual = test == [row.input for row in rows[: held_out_size(len(rows), size=size)]]
    assert is_usual or test == once[: held_out_size(len(once), size=size)]
    assert set(test).isdisjoint(pool)
    assert len(set(pool)) == len(pool)
    assert set(test) | set(pool) == {row.input for row in rows}
    assert len(test) + len(pool) + division.leaks + division.repeated == len(rows)
    scored = TestTexts.of(division.splits["test"])
    shuffled = random.Random(seed).sample(rows, len(rows))
    training = divide(task("training", shuffled), size=size, seed=seed, tests=scored)
    assert all(example not in scored for split in training.splits.values() for example in split)
