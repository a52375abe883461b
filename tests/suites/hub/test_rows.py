"""Rows become examples by columns or by a form that is known; what cannot be used is named by row and column."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.hub.opening import Split
from mhrctl.suites.hub.rows import Columns, RowReader

QUESTION = Columns("question", "answer")
Content = tuple[str, tuple[str, ...], tuple[str, ...]]


def reader(rows: list[dict[str, Any]], columns: Columns = QUESTION, **labels: tuple[str, ...]) -> RowReader:
    return RowReader.of(Split("data, split train", labels, lambda: iter(rows)), columns)


def content(row: dict[str, Any], columns: Columns = QUESTION, **labels: tuple[str, ...]) -> Content:
    """Input, targets and choices of a row."""
    (example,) = reader([row], columns, **labels).examples()
    return example.input, example.targets, example.choices


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"question": "q", "answer": "a", "more": 1}, QUESTION, ("q", ("a",), ())),
        ({"question": "q", "answers": ["a", "b"]}, Columns("question", targets="answers"), ("q", ("a", "b"), ())),
        ({"question": "q", "answers": "a"}, Columns("question", targets="answers"), ("q", ("a",), ())),
        ({"q": "q", "answers": {"text": ["a"]}}, Columns("q", targets="answers.text"), ("q", ("a",), ())),
        ({"q.x": "q", "answer": "a"}, Columns("q.x", "answer"), ("q", ("a",), ())),
        ({"q": "q", "a": "y", "c": ["x", "y"]}, Columns("q", "a", choices="c"), ("q", ("y",), ("x", "y"))),
        ({"q": "q", "a": 1, "c": ["x", "y"]}, Columns("q", "a", choices="c"), ("q", ("y",), ("x", "y"))),
        ({"input": "q", "target": "a"}, Columns(), ("q", ("a",), ())),
        ({"input": "q", "targets": ["a", "b"]}, Columns(), ("q", ("a", "b"), ())),
        ({"input": "q", "target": "a", "c": ["a", "b"]}, Columns(choices="c"), ("q", ("a",), ("a", "b"))),
        ({"prompt": "q", "completion": "a"}, Columns(), ("q", ("a",), ())),
        ({"prompt": [said("user", "q")], "completion": [said("assistant", "a")]}, Columns(), ("q", ("a",), ())),
        ({"prompt": "q", "completion": "a", "c": ["b", "a"]}, Columns(choices="c"), ("q", ("a",), ("b", "a"))),
        ({"messages": [said("user", "q"), said("assistant", "a")]}, Columns(), ("q", ("a",), ())),
    ],
)
def test_the_forms_of_a_row(row: dict[str, Any], columns: Columns, expected: Content) -> None:
    assert content(row, columns) == expected


def test_what_precedes_the_last_message_is_marked_by_role() -> None:
    messages = [
        said("system", "Be short."),
        said("user", "q"),
        said("assistant", "a"),
        said("user", "r"),
        said("assistant", "b"),
    ]
    text = "System: Be short.\nUser: q\nAssistant: a\nUser: r"
    assert content({"messages": messages}, Columns()) == (text, ("b",), ())
    row = {"prompt": messages[:-1], "completion": messages[-1:]}
    assert content(row, Columns()) == (text, ("b",), ())
    for each in ({"messages": messages}, row):
        (example,) = reader([each], Columns()).examples()
        assert example.turns == (("system", "Be short."), ("user", "q"), ("assistant", "a"), ("user", "r"))
    (example,) = reader([{"prompt": "q", "completion": "a"}], Columns()).examples()
    assert example.turns == ()


def test_a_class_label_is_its_name_and_its_names_are_choices() -> None:
    row = {"question": "q", "answer": 1}
    assert content(row, answer=("no", "yes")) == ("q", ("yes",), ("no", "yes"))
    assert reader([row], answer=("no", "yes")).has_choices
    several = Columns("question", "answer", choices="c")  # where a label is the number of a choice, as MMLU has it
    assert content(row | {"c": ["x", "y"]}, several, answer=("A", "B")) == ("q", ("y",), ("x", "y"))


def test_a_column_names_tasks_as_text_or_as_a_class_label() -> None:
    rows = [{"question": "q", "answer": "a", "topic": topic} for topic in ("b", "c")]
    columns = Columns("question", "answer", task="topic")
    assert [(task, example.id) for task, example in reader(rows, columns).rows()] == [("b", "1"), ("c", "2")]
    numbered = [row | {"topic": number} for number, row in enumerate(rows)]
    assert [task for task, _ in reader(numbered, columns, topic=("x", "y")).rows()] == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({"answer": None}, QUESTION, "column 'answer' is null, not a text"),
        ({"answer": ""}, QUESTION, "column 'answer' is empty, not a text"),
        ({"question": " "}, QUESTION, "column 'question' is empty, not a text"),
        ({"answer": 4}, QUESTION, "column 'answer' is the number 4, not a text"),
        ({"answer": 0.5}, QUESTION, "column 'answer' is the number 0.5, not a text"),
        ({"answer": True}, QUESTION, "column 'answer' is true, not a text"),
        ({"answer": ["a"]}, QUESTION, "column 'answer' is a list, not a text"),
        ({"answer": {"text": "a"}}, QUESTION, "column 'answer' is a dict, not a text"),
        ({"answer": dt.datetime(2018, 9, 3)}, QUESTION, "column 'answer' is a date to `datasets`"),  # noqa: DTZ001
        ({"answer": ["a", None]}, Columns("question", targets="answer"), "column 'answer', item 2 is null, not a text"),
        ({"answer": []}, Columns("question", targets="answer"), "column 'answer' is an empty list"),
        ({"answer": {"text": 1}}, Columns("question", targets="answer.text"), "column 'answer.text' is the number 1"),
        ({"answer": 7}, Columns("question", "answer", choices="choices"), "column 'answer' is the number 7, not the number of"),
        ({"answer": -1}, Columns("question", "answer", choices="choices"), "is the number -1, not the number of one of 2"),
        ({"answer": "c"}, Columns("question", "answer", choices="choices"), "target 'c' is none of the choices ('a', 'b')"),
        ({"choices": None}, Columns("question", "answer", choices="choices"), "column 'choices' is null, not a text"),
        ({"task": 3}, Columns("question", "answer", task="task"), "column 'task' is the number 3, not a text"),
    ],
)
def test_a_bad_value_is_named_by_row_and_column(change: dict[str, Any], columns: Columns, message: str) -> None:
    good: dict[str, Any] = {"question": "q", "answer": "a", "choices": ["a", "b"], "task": "t"}
    if columns.targets == "answer.text":
        good["answer"] = {"text": "a"}
    with pytest.raises(DataError) as error:
        list(reader([good, good | change], columns).rows())
    assert str(error.value).startswith("data, split train, row 2: ")
    assert message in str(error.value)


def test_odd_rows_are_left_out_and_counted_unless_they_are_most(tmp_path: Path) -> None:
    good, odd = {"question": "q", "answer": "a"}, {"question": "q", "answer": "a\ud83d"}
    rows: list[dict[str, Any]] = [good, odd, good, {"question": 3, "answer": "a"}]
    notes: Counter[str] = Counter()
    lenient = RowReader.of(Split(str(tmp_path), {}, lambda: iter(rows)), QUESTION, strict=False)
    for _ in range(2):  # a stream is read as often as it is asked for
        notes.clear()
        assert [example.id for example in lenient.examples(notes)] == ["1", "3"]
    first = f"{tmp_path}, row 2: column 'answer' holds half of a surrogate pair, which is no character"
    assert notes == {f"rows that cannot be read, left out, first {first}": 2}
    rows.append(odd)
    with pytest.raises(DataError, match=r"row 2: column 'answer' holds half"):
        list(lenient.examples())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": None}, "column 'messages' is null, not a list of two messages or more"),
        ({"messages": [said("assistant", "a")]}, "column 'messages' is a list, not a list of two messages or more"),
        ({"messages": [said("user", "q"), said("user", "r")]}, "ends with a message of 'user', not of the assistant"),
        ({"messages": ["q", "a"]}, "message 1 is 'q', not a mapping of `role` and `content`"),
        ({"messages": [said("user", ""), said("assistant", "a")]}, "message 1, content is empty, not a text"),
        ({"prompt": "q", "completion": [said("user", "a")] * 2}, "column 'completion' holds 2 messages, not one"),
        ({"prompt": [], "completion": "a"}, "column 'prompt' is an empty list"),
        ({"prompt": "q", "completion": 3}, "column 'completion' is the number 3, not a text"),
    ],
)
def test_a_bad_message_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        content(row, Columns())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([], QUESTION, r"data, split train: has no rows"),
        ([{"question": "q"}], QUESTION, r"no column 'answer' \(it has question\); set prepare.columns"),
        (
            [{"question": "q", "answer": "a"}],
            Columns("question", "answer", task="t"),
            r"no column 't' \(it has question, answer\)",
        ),
        ([{"q": "q", "a": "a"}], Columns(), r"set prepare.columns: it has the columns q, a, and not `prompt` and `completion`"),
    ],
)
def test_what_a_split_lacks_is_said_at_once(rows: list[dict[str, Any]], columns: Columns, message: str) -> None:
    with pytest.raises(DataError, match=message):
        reader(rows, columns)
