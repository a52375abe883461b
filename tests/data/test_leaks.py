"""Equal texts: what counts as equal, and what is left out for it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mhrctl.data.leaks import LEAKS, TestTexts, distinct
from mhrctl.suites.task import Example

SCORED = [Example("a", "what is  two\n", ("2", "two")), Example("b", "caf\u00e9", ("x",), ("x", "y"))]


def test_equal_is_the_input_with_any_target_whatever_the_space_or_the_form_of_a_letter() -> None:
    tests = TestTexts.of(SCORED)
    equal = [("what is two", ("two",)), (" what is two ", ("3", " 2")), ("cafe\u0301", ("x",))]
    other = [("what is two", ("3",)), ("What is two", ("2",)), ("whatistwo", ("2",)), ("x", ("caf\u00e9",))]
    assert all(Example("e", *texts) in tests for texts in equal)
    assert not any(Example("o", *texts) in tests for texts in other)
    assert Example("a", "", ("2",)) not in TestTexts()
    assert "what is two" not in tests


def test_input_and_target_are_kept_apart() -> None:
    tests = TestTexts.of([Example("a", "one two", ("three",))])
    assert Example("b", "one", ("two three",)) not in tests


def test_what_is_equal_is_left_out_in_order_and_counted_in_a_stream() -> None:
    tests, notes = TestTexts.of(SCORED), Counter[str]()
    rows = [Example("1", "q", ("a",)), SCORED[0], Example("2", "r", ("b",)), SCORED[1]]
    assert tests.without(rows) == list(tests.filtered(iter(rows), notes)) == [rows[0], rows[2]]
    assert notes == {LEAKS: 2}


def test_the_key_depends_on_the_texts_and_not_on_their_order() -> None:
    assert TestTexts.of(SCORED).key == TestTexts.of(SCORED[::-1]).key != TestTexts.of(SCORED[:1]).key


def test_repeats_have_input_and_all_targets_equal() -> None:
    rows = [Example("1", "q", ("a", "b")), Example("2", "q ", ("b", "a")), Example("3", "q", ("a",)), Example("4", "q", ("a",))]
    assert [row.id for row in distinct(rows)] == ["1", "3"]
    assert [row.id for row in distinct(rows, after=[rows[3]])] == ["1"]


texts = st.text(alphabet="ab \u00e9", max_size=3)
examples = st.lists(st.builds(Example, st.just(""), texts, st.lists(texts, min_size=1, max_size=2).map(tuple)), max_size=12)


@given(examples, examples)
def test_nothing_equal_is_left_and_nothing_else_is_lost(scored: list[Example], others: list[Example]) -> None:
    def pairs(example: Example) -> set[tuple[str, str]]:
        return {(" ".join(example.input.split()), " ".join(target.split())) for target in example.targets}

    taken = set().union(*map(pairs, scored)) if scored else set()
    assert TestTexts.of(scored).without(others) == [example for example in others if not pairs(example) & taken]
    kept = distinct(others)
    assert len({frozenset(pairs(example)) for example in kept}) == len(kept)
    assert {frozenset(pairs(example)) for example in kept} == {frozenset(pairs(example)) for example in others}
