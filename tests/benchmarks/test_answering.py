"""Answers of several tasks by a micro model, proven equal before they are timed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks import answering
from benchmarks.answering import Plan, of_tasks
from benchmarks.peers import UnequalError
from benchmarks.shapes import SHAPES

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers
PLAN = Plan(("micro",), tasks=3, rows=5, repetitions=1, longest=24, most=6, data=None)


@pytest.fixture(autouse=True)
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest shape, smaller."""
    monkeypatch.setitem(SHAPES, "micro", replace(SHAPES["micro"], layers=1))


def test_ratios() -> None:
    measured = answering.measure(PLAN)
    assert [(row.gate, row.aim) for row in measured.rows] == [(0.6, 0.4), (None, None)]
    assert all(0 < row.value.median < math.inf for row in measured.rows)
    assert set(measured.figures) == {"micro: MHR", "micro: peft MHR", "micro: folded"}


def test_nothing_is_timed_where_answers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.Peer.copy", lambda *_: None)
    with pytest.raises(UnequalError, match=r"answers of MHR: \d+ of 15 differ"):
        answering.measure(PLAN)


def test_samples_are_those_of_the_tasks_with_most_rows() -> None:
    lengths = [(4, 2, 7), *[(5 + number, 3, 1) for number in range(6)], *[(9, 3, 4)] * 5, (4, 2, 7)]
    first, second, third = of_tasks(lengths, SHAPES["micro"], PLAN)
    assert [len(sample.input_ids) for sample in first] == [5, 6, 7, 8, 9]
    assert [len(sample.input_ids) for sample in second] == [9] * 5
    assert len(third) == 2
    assert list(map(len, of_tasks([(4, 2, number) for number in range(20)], SHAPES["micro"], PLAN))) == [5, 5, 5]


def test_answers_are_not_all_alike() -> None:
    samples = of_tasks([(4 + number, 2, number) for number in range(15)], SHAPES["micro"], PLAN)
    texts = answering.answerers_of(SHAPES["micro"], samples, 12)["MHR"]()
    assert len({text for of_task in texts for text in of_task}) > 1
    assert len({len(text.split()) for of_task in texts for text in of_task}) > 1
