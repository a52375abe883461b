"""A test task's own examples, beside those of training tasks."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.names import TEST_EXAMPLES, TRAINING_EXAMPLES
from mhrctl.data.examples import Examples
from mhrctl.data.own_examples import OwnExamples


def test_no_test_row_is_among_them_and_a_fifth_is_to_validate_on(walked: Path) -> None:
    prepared = walked / "data/prepare"
    tests = Examples.read(prepared / TEST_EXAMPLES)
    of_tests = OwnExamples.read(prepared / TEST_EXAMPLES)
    assert list(of_tests.inputs) == tests.tasks
    for task in tests.tasks:
        of_task = tests.of(tasks=[task])
        outside = [row for split in ("pool", "train", "validation") for row in of_task.of(split=split).column("prompt")]
        assert set(of_tests.inputs[task]) < set(outside)
        assert len(of_tests.inputs[task]) == len(outside) - min(25, len(outside) // 5)
        assert not set(of_tests.inputs[task]) & set(tests.of(tasks=[task], split="test").column("prompt"))


def test_they_stand_behind_the_training_tasks_as_tasks_of_their_own(walked: Path) -> None:
    prepared = walked / "data/prepare"
    training, tests = Examples.read(prepared / TRAINING_EXAMPLES), Examples.read(prepared / TEST_EXAMPLES)
    of_tests = OwnExamples.read(prepared / TEST_EXAMPLES)
    joined = of_tests.beside(training)
    assert joined.tasks == [*training.tasks, *tests.tasks]
    assert len(joined) == len(training) + len(of_tests.rows)
    first = tests.tasks[0]
    for split in ("train", "validation"):
        rows = joined.of(tasks=[first], split=split)
        assert len(rows) == sum(row["task"] == first and row["split"] == split for row in of_tests.rows.to_pylist())
        assert {sample.task for sample in rows.scored()} == {len(training.tasks)}
    known = {tuple(sample.input_ids) for sample in tests.of(tasks=[first]).scored()}
    assert {tuple(sample.input_ids) for sample in joined.of(tasks=[first]).scored()} < known
    for sample, expected in zip(joined.take(range(3)).scored(), training.take(range(3)).scored(), strict=True):
        assert (sample.task, tuple(sample.input_ids)) == (expected.task, tuple(expected.input_ids))
