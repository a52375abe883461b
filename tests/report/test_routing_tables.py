"""The tables of an inspection."""

from __future__ import annotations

import numpy as np
import pytest

from mhrctl.analysis.routing_measures import Inspection, Routing
from mhrctl.analysis.routing_similarity import Comparison, Correlation, Pair
from mhrctl.report.routing_tables import measures_table, pairs_table

PAIRS = [Pair(("a", "b"), 0.5, None), Pair(("a", "c"), -0.25, 0.125)]


def inspection(*parts: str) -> Inspection:
    return Inspection.of(Routing(("a", "b"), {part: np.zeros((2, 1, 4)) for part in parts}))


def test_each_coder_is_a_row_of_what_zero_logits_are() -> None:
    table = measures_table("routing of x", inspection("encoder.q", "decoder.q"), None, skills=4)
    even = ["1.000", "1.000", "1.000", "4.000"]
    assert table.title == "routing of x"
    assert table.columns[0] == "part"
    assert table.rows == [["encoder", *even], ["decoder", *even], ["all", *even]]
    assert table.notes[1].endswith("mean over tasks; of 4.")


def test_training_tasks_stand_below_test_tasks_and_a_coder_without_a_part_is_left_out() -> None:
    table = measures_table("x", inspection("model"), inspection("encoder.q", "model"), skills=4)
    assert table.columns[0] == "tasks, part"
    assert [row[0] for row in table.rows] == ["test, all", "training, encoder", "training, all"]


def test_pairs_have_the_cosines_of_routing_and_inputs() -> None:
    table = pairs_table(PAIRS, None, with_tests=False)
    assert table.rows == [["a", "b", "0.500", "-"], ["a", "c", "-0.250", "0.125"]]
    assert (table.title, table.columns[:2], table.notes) == ("training tasks routed most alike", ("task", "and"), [])
    assert pairs_table(PAIRS, None, with_tests=True).columns[:2] == ("test task", "training task")


@pytest.mark.parametrize(
    ("correlation", "note"),
    [
        (Correlation(0.421, 0.0314, 1234), "Routing and inputs, 1,234 pairs: Spearman 0.42, p 0.031."),
        (None, "Routing and inputs, the same for all pairs."),
    ],
)
def test_a_comparison_is_a_note(correlation: Correlation | None, note: str) -> None:
    assert pairs_table(PAIRS, Comparison("tfidf", correlation, None), with_tests=False).notes == [note]
