"""Scores by hand, and what the table says of its metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mhrctl.evaluation.metrics import (
    METRICS,
    MIXED,
    OVER_CHOICES,
    Answer,
    References,
    choices_to_score,
    exact_match,
    is_over_choices,
    known_metric,
    recorded_metrics,
    references_of,
    rouge_l,
    score_all,
    title_of,
)


@pytest.mark.parametrize(
    ("prediction", "references", "rouge", "exact"),
    [
        ("the cats sat", ["the cat sat"], 100.0, 0.0),  # the stemmer folds cats and cat
        ("a b", ["a b c d"], 200 / 3, 0.0),
        ("x", ["a", "X."], 100.0, 100.0),
        ("", ["a"], 0.0, 0.0),
        ("The dog", ["dog"], 200 / 3, 0.0),  # articles stay
    ],
)
def test_scores_by_hand(prediction: str, references: list[str], rouge: float, exact: float) -> None:
    assert rouge_l(prediction, references) == pytest.approx(rouge)
    assert exact_match(prediction, references) == exact
    answer, right = Answer(prediction), References(references)
    assert METRICS["rouge_l"].score(answer, right) == pytest.approx(rouge)
    assert METRICS["exact_match"].score(answer, right) == METRICS["accuracy"].score(answer, right) == exact


def test_every_metric_is_within_percent_and_is_right_about_the_reference_itself() -> None:
    right = References.among(["yes it is", "no"], ["yes it is"])
    for metric in METRICS.values():
        assert metric.score(Answer("yes it is", 0), right) == 100
        assert metric.score(Answer("no", 1), right) == 0


def test_every_row_is_whole() -> None:
    for name, metric in METRICS.items():
        assert metric.title
        assert metric.compares
        assert metric.recorded_as in ("", *(other for other in METRICS if METRICS[other].always))
        assert OVER_CHOICES[name] == is_over_choices(name) == metric.over_choices
        assert title_of(name) == metric.title
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert MIXED not in METRICS


def test_several_metrics_are_a_score_and_of_no_choices() -> None:
    for name in (MIXED, None):
        assert title_of(name) == "score"
        assert not is_over_choices(name)


def test_an_unknown_metric_is_reported_with_the_known_ones() -> None:
    assert known_metric("rouge_l") == "rouge_l"
    with pytest.raises(ValueError, match=r"unknown metric 'rouge'; did you mean 'rouge_l'\? \(known: rouge_l, exact_match,"):
        known_metric("rouge")


def test_what_is_recorded_is_always_the_same_and_each_tasks_metric_besides() -> None:
    assert recorded_metrics([]) == ["rouge_l", "exact_match"]
    assert recorded_metrics(["accuracy", "rouge_l"]) == ["rouge_l", "exact_match"]  # accuracy is recorded as exact match


def test_answers_are_chosen_where_the_metric_is_over_choices_and_every_example_has_some() -> None:
    choices = [["yes", "no"], ["a", "b", "c"]]
    assert choices_to_score("accuracy", choices) == choices
    assert choices_to_score("accuracy", [["yes", "no"], []]) == []
    assert choices_to_score("rouge_l", choices) == []


def test_references_know_their_places() -> None:
    first, second, third = references_of([["<"], ["-5", "c"], ["free"]], [["<", "=", ">"], ["5", "-5", "c"], []])
    assert (first.texts, first.places) == (["<"], {0})
    assert second.places == {1, 2}
    assert third.places == set()


def test_choices_that_are_equal_to_the_letter_are_one_choice() -> None:
    assert References.among(["yes", "no", "yes", "Yes"], ["yes"]).places == {0, 2}


def test_answers_are_scored_each_against_its_references() -> None:
    right = [References(["a"]), References(["b", "c"]), References(["d"])]
    assert score_all("exact_match", [Answer("a"), Answer("c"), Answer("e")], right) == [100, 100, 0]
    with pytest.raises(ValueError, match="longer"):
        score_all("exact_match", [Answer("a")], right)


def test_the_table_is_read_without_what_computes_rouge() -> None:
    code = "import sys, mhrctl.evaluation.metrics; sys.exit(bool({'rouge_score', 'nltk', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
