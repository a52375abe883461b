"""Scores of seeds and tasks folded into one, by hand."""

from __future__ import annotations

import pytest

from mhrctl.report.aggregates import MEANS, MEDIANS, aggregate_of, mean_of_medians, mean_std


@pytest.mark.parametrize(
    ("values", "text"),
    [([60.0, 62.0, 67.0], "63.0±3.6"), ([80.0], "80.0"), ([3.0, 5.0], "4.0"), ([3.0] * 3, "3.0±0.0")],
    ids=["three", "one has no deviation", "nor have two", "three alike"],
)
def test_a_spread_is_the_mean_and_the_deviation_of_a_sample(values: list[float], text: str) -> None:
    assert str(mean_std(values)) == text  # 60, 62, 67: squares 9 + 1 + 16, over 2, root 3.61


def test_nothing_has_no_spread() -> None:
    assert mean_std([]) is None


@pytest.mark.parametrize(
    ("by_task", "text"),
    [
        ({"a": [60.0, 62.0, 67.0], "b": [80.0, 80.0, 86.0]}, "71.0±3.5"),  # medians 62 and 80; deviations 3.61 and 3.46
        ({"a": [60.0], "b": [80.0]}, "70.0"),
        ({"a": [60.0, 62.0, 67.0], "b": [80.0, 81.0]}, "71.2"),  # a task of two seeds has no deviation, nor has the mean
    ],
    ids=["three seeds", "one seed", "three seeds of one task alone"],
)
def test_medians_are_over_seeds_and_deviations_too(by_task: dict[str, list[float]], text: str) -> None:
    assert str(mean_of_medians(by_task)) == text


def test_no_tasks_have_no_median() -> None:
    assert mean_of_medians({}) is None


def test_t0_alone_is_reported_by_medians() -> None:
    assert aggregate_of("t0") is MEDIANS
    assert {id(aggregate_of(suite)) for suite in ("superni", "jsonl", "compositional", None)} == {id(MEANS)}
