"""Scores by hand, and what the table says of its metrics."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from mhrctl.evaluation.metrics import (
    METRICS,
    MIXED,
    OVER_CHOICES,
    Answer,
    References,
    choices_to_score,
    is_over_choices,
    known_metric,
    recorded_metrics,
    references_of,
    score_all,
    title_of,
)
from mhrctl.evaluation.text_scores import exact_match, rouge_l, token_f1


@pytest.mark.parametrize(
    ("prediction", "references", "rouge", "exact"),
    [
        ("the cats sat", ["the cat sat"], 100.0, 0.0),  # the stemmer folds cats and cat
        ("a b", ["a b c d"], 200 / 3, 0.0),
        ("x", ["a", "X."], 100.0, 100.0),
        ("", ["a"], 0.0, 0.0),
        ("The dog", ["dog"], 200 / 3, 0.0),  # articles stay
        ("a caf\u00e9", ["a caf\u00c9."], 100.0, 100.0),
        ("<", ["<"], 0.0, 100.0),  # ROUGE-L of no word is 0, as upstream has it
        ("<", ["="], 0.0, 0.0),  # a reference of punctuation alone is compared as it stands
        ("< ", ["!!", " <"], 0.0, 100.0),
        ("?!", ["why"], 0.0, 0.0),
    ],
)
def test_scores_by_hand(prediction: str, references: list[str], rouge: float, exact: float) -> None:
    assert rouge_l(prediction, references) == pytest.approx(rouge)
    assert exact_match(prediction, references) == exact
    answer, right = Answer(prediction), References(references)
    assert METRICS["rouge_l"].score(answer, right) == pytest.approx(rouge)
    assert METRICS["exact_match"].score(answer, right) == exact


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("the cat sat", ["cat sat"], 100.0),  # the article is no word
        ("cat", ["the cat sat"], 100 * 2 / 3),  # precision 1, recall 1/2
        ("The U.S.A.!", ["usa"], 100.0),  # case and punctuation go, and leave no gap
        ("a b c", ["b d"], 50.0),  # b of [b, c] and of [b, d]
        ("x x y", ["x y y"], 100 * 2 / 3),  # words count as often as both have them
        ("no overlap", ["none", "overlap of all"], 100 * 2 / 5),  # the best reference: 1 of 2 words and 1 of 3
        ("then", ["the n"], 0.0),  # articles are whole words
        ("", ["a"], 0.0),  # version 1.1: nothing shares nothing
        ("The!", ["?"], 0.0),
        ("a-the", ["athe"], 100.0),  # punctuation goes first: there is no article in it
        ("la a\u2013b", ["la \u2013b"], 100.0),  # a dash that is not of ASCII stays, and ends a word
        ("->", ["->"], 100.0),  # a reference without any word is matched by itself
        ("a\u0300 la carte", ["\u00e0 la carte"], 100.0),  # an accent apart from its letter makes no article of it
    ],
)
def test_f1_by_hand(prediction: str, references: list[str], expected: float) -> None:
    """Expected values are those of the definition: `evaluate-v1.1.py` of SQuAD."""
    assert token_f1(prediction, references) == pytest.approx(expected)
    assert METRICS["f1"].score(Answer(prediction), References(references)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "choices",
    [["<", "=", ">"], ["5", "-5", "5."], ["C", "C++", "C#"], ["yes", "YES", "Yes!"], ["1.5", "15", "1,5"], ["A", "A+", "a"]],
)
def test_a_choice_is_right_by_its_place_where_texts_look_alike(choices: list[str]) -> None:
    for gold, text in enumerate(choices):
        right = References.among(choices, [text])
        scores = [METRICS["accuracy"].score(Answer(choice, place), right) for place, choice in enumerate(choices)]
        assert scores == [100.0 * (place == gold) for place in range(3)]


def test_a_choice_is_right_at_every_place_of_a_right_text() -> None:
    score = METRICS["accuracy"].score
    twice = References.among(["yes", "no", "yes"], ["yes"])
    assert [score(Answer("", place), twice) for place in range(3)] == [100, 0, 100]
    several = References.among(["a", "b", "c"], ["a", "c"])
    assert [score(Answer("", place), several) for place in range(3)] == [100, 0, 100]


def test_a_generated_answer_has_no_place() -> None:
    with pytest.raises(ValueError, match="'yes' was generated"):
        METRICS["accuracy"].score(Answer("yes"), References.among(["yes", "no"], ["yes"]))


def test_every_metric_is_within_percent_and_is_right_about_the_reference_itself() -> None:
    right = References.among(["yes it is", "no"], ["yes it is"])
    for metric in METRICS.values():
        assert metric.score(Answer("yes it is", 0), right) == 100
        assert metric.score(Answer("no", 1), right) == 0


def test_every_row_is_whole() -> None:
    for name, metric in METRICS.items():
        assert metric.title
        assert metric.compares
        assert OVER_CHOICES[name] == is_over_choices(name) == metric.over_choices
        assert title_of(name) == metric.title
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert MIXED not in METRICS


def test_the_docs_have_the_tables_rows() -> None:
    rows = {
        f"| `{name}` | {metric.title} | {'chosen' if metric.over_choices else 'generated'} | {metric.compares} |"
        for name, metric in METRICS.items()
    }
    lines = (Path(__file__).parents[2] / "docs/metrics.md").read_text().splitlines()
    assert {line for line in lines if line.split(" | ")[2:3] in (["chosen"], ["generated"])} == rows


def test_several_metrics_are_a_score_and_of_no_choices() -> None:
    for name in (MIXED, None):
        assert title_of(name) == "score"
        assert not is_over_choices(name)


def test_a_text_is_the_same_however_its_accents_are_encoded() -> None:
    composed, apart = "Ελλάς, Zoë", unicodedata.normalize("NFD", "ΕΛΛΆΣ Zoë")
    assert composed != apart
    assert exact_match(apart, [composed]) == token_f1(apart, [composed]) == 100
    assert exact_match("Ελλάδα", [composed]) == 0


def test_rouge_is_of_the_tokens_that_the_references_ask_for() -> None:
    assert METRICS["rouge_l"].score(Answer("άλφα"), References(["άλφα"])) == 0
    assert METRICS["rouge_l"].score(Answer("άλφα"), References(["άλφα"], rouge_tokenizer="gpt2")) == 100
    (right,) = references_of([["άλφα"]], [[]], "gpt2")
    assert right.rouge_tokenizer == "gpt2"


def test_the_former_name_of_accuracy_is_reported_with_the_present_one() -> None:
    with pytest.raises(ValueError, match="unknown metric 'choice_accuracy'; did you mean 'accuracy'"):
        known_metric("choice_accuracy")


def test_an_unknown_metric_is_reported_with_the_known_ones() -> None:
    assert known_metric("rouge_l") == "rouge_l"
    with pytest.raises(ValueError, match=r"unknown metric 'rouge'; did you mean 'rouge_l'\? \(known: rouge_l, exact_match,"):
        known_metric("rouge")


def test_what_is_recorded_is_always_the_same_and_each_tasks_metric_besides() -> None:
    assert recorded_metrics([]) == ["rouge_l", "exact_match"]
    assert recorded_metrics(["rouge_l"]) == ["rouge_l", "exact_match"]
    assert recorded_metrics(["f1", "accuracy", "rouge_l"]) == ["rouge_l", "exact_match", "accuracy", "f1"]


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
    heavy = "{'rouge_score', 'nltk', 'scipy', 'torch', 'tokenizers'}"
    code = f"import sys, mhrctl.evaluation.metrics; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
