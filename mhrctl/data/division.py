"""A task's examples are divided into splits, as its source says or by the rules of `mhrctl.data.splits`.

What a test row says is kept out of all other splits, of its own task and of all that are trained on, and a pool has each text
once. A task without equal texts is divided as if nobody had looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mhrctl.data.leaks import TestTexts, distinct
from mhrctl.data.splits import held_out_size, training_split
from mhrctl.suites.task import Example, Split, Task

Splits = dict[Split, list[Example]]


@dataclass(frozen=True)
class Division:
    """A division is the splits of a task, and what was left out of them.

    Attributes:
        splits: {split: its examples}.
        dropped: why the task cannot be used; empty if it can be.
        leaks: examples that are equal to a test row, left out.
        repeated: examples that repeat another, left out of the pool, or of a task of few texts altogether.
        repeated_tests: test rows that repeat another; they stay, for the test set is what it is.
        given_leaks: examples that are equal to a test row and stay, since the source gives its few-shot sets.
    """

    splits: Splits = field(default_factory=dict)
    dropped: str = ""
    leaks: int = 0
    repeated: int = 0
    repeated_tests: int = 0
    given_leaks: int = 0

    @property
    def used(self) -> dict[str, int]:
        """{split: how many examples} of splits that have any."""
        return {split: len(examples) for split, examples in self.splits.items() if examples}


def divide(task: Task, *, size: int, seed: int, tests: TestTexts) -> Division:
    """Divide a task that is not streamed.

    Args:
        task: the task.
        size: the most examples of a split, a pool's aside.
        seed: of a training task's shuffle.
        tests: the test rows of all test tasks, of which a task that is trained on may have none; a test task keeps to its own.
    """
    if task.role == "test":
        division = _test_division(task, task.examples, size)
        return (_of_distinct_texts(task, size) if division.dropped else None) or division
    examples = tests.without(task.examples)
    leaks = len(task.examples) - len(examples)
    given, free = _given(examples)
    if task.role == "backbone":
        return Division({"train": free}, leaks=leaks)
    if any(example.split is not None for example in task.examples):
        given["train"] = (given["train"] + free)[:size]
    else:
        given["train"], given["validation"] = training_split(free, size=size, seed=seed)
    reason = "" if given["train"] else f"has no example to train on{_equal(leaks, len(task.examples))}"
    return Division({"train": given["train"], "validation": given["validation"][:size]}, reason, leaks)


def _of_distinct_texts(task: Task, size: int) -> Division | None:
    """Divide a test task that repeats so few texts that none would be left to learn from: each is in one split, once.

    Returns:
        The division; None if the source names splits, or if this does not help.
    """
    examples = distinct(task.examples)
    repeated = len(task.examples) - len(examples)
    if not repeated or any(example.split is not None for example in examples):
        return None
    division = _test_division(task, examples, size)
    return None if division.dropped else replace(division, repeated=division.repeated + repeated)


def _test_division(task: Task, examples: Sequence[Example], size: int) -> Division:
    given, free = _given(examples)
    if task.keeps_splits:
        tests = TestTexts.of(given["test"])
        kept = sum(example in tests for example in given["train"] + given["validation"])
        return Division(given, repeated_tests=_repeated(given["test"]), given_leaks=kept)
    if not given["test"]:
        held_out = held_out_size(len(examples), size=size)
        given["test"], free = free[:held_out], free[held_out:]
    scored = given["test"][:size]
    tests = TestTexts.of(scored)
    train, validation = tests.without(given["train"]), tests.without(given["validation"])
    others = tests.without(free)
    pool = distinct(others, after=[*train, *validation])
    leaks = sum(map(len, (given["train"], given["validation"], free))) - sum(map(len, (train, validation, others)))
    reason = ""
    if not scored or not (train or len(pool) > 1):
        total, repeated = len(task.examples), len(others) - len(pool)
        left = _equal(leaks, total) + (f", {repeated:,} repeat others" if repeated else "")
        reason = f"has too few examples ({total}) for train, validation and test{left}"
    splits: Splits = {"train": train[:size], "validation": validation[:size], "test": scored, "pool": pool}
    return Division(splits, reason, leaks, len(others) - len(pool), _repeated(scored))


def _given(examples: Sequence[Example]) -> tuple[Splits, list[Example]]:
    """The examples of each split that the source names, and those of none."""
    given: Splits = {
        split: [example for example in examples if example.split == split] for split in ("train", "validation", "test")
    }
    return given, [example for example in examples if example.split is None]


def _repeated(examples: Sequence[Example]) -> int:
    return len(examples) - len(distinct(examples))


def _equal(leaks: int, total: int) -> str:
    return f": {leaks:,} of {total:,} are equal to test examples" if leaks else ""
