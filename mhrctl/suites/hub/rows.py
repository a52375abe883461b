"""Rows of a data set become examples: by the columns that params.yaml names, or by the forms in which instructions are kept."""

from __future__ import annotations

import datetime as dt
import reprlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mhrctl.errors import DataError
from mhrctl.suites.hub.opening import Record, Split
from mhrctl.suites.reading import OddRecords, is_unicode
from mhrctl.suites.task import Example

Messages = tuple[tuple[str, str], ...]
"""(role, content) of each message of a conversation."""
FORMS = "`prompt` and `completion`, `messages`, or `input` and `target` or `targets`"


@dataclass(frozen=True)
class Columns:
    """These names say which columns say what; None is for what no column says. `prepare.columns` says more."""

    input: str | None = None
    target: str | None = None
    targets: str | None = None
    choices: str | None = None
    task: str | None = None

    @property
    def text(self) -> tuple[str, ...]:
        """All columns that may hold text, those of the known forms too."""
        named = [self.input, self.target, self.targets, self.task]
        return (*(name for name in named if name), "prompt", "completion", "input", "target", "targets", "task")


@dataclass(frozen=True)
class RowReader:
    """A reader reads the rows of a split.

    Attributes:
        split: the split.
        form: `columns`, or one of the forms that are known.
        columns: which columns say what.
        strict: reject the first row that cannot be used; else they are left out and counted, unless they are more than half.
    """

    split: Split
    form: Literal["columns", "prompt", "messages"]
    columns: Columns
    strict: bool = True

    @classmethod
    def of(cls, split: Split, columns: Columns, *, strict: bool = True) -> RowReader:
        """Find out the form of a split by its first row.

        Args:
            split: the split.
            columns: which columns say what.
            strict: reject the first row that cannot be used.

        Raises:
            DataError: if the split is empty, or lacks a column; names those that there are.
        """
        first = next(split.rows(), None)
        if first is None:
            raise DataError(f"{split.where}: has no rows")
        form, columns = _form(first, columns, split.where)
        for name in (columns.input, columns.target, columns.targets, columns.choices, columns.task):
            if name is not None and name not in first and name.partition(".")[0] not in first:
                raise DataError(f"{split.where}: no column {name!r} (it has {', '.join(first)}); set prepare.columns")
        return cls(split, form, columns, strict)

    @property
    def has_choices(self) -> bool:
        """Whether each example has answer choices."""
        return self.columns.choices is not None or self._names is not None

    def rows(self, notes: Counter[str] | None = None) -> Iterator[tuple[str | None, Example]]:
        """Read (name of the task, example); the name is None where no column names tasks.

        Args:
            notes: to which rows that are left out are added, with the first.

        Raises:
            DataError: naming the row, counted from 1, and the column of what cannot be used.
        """
        odd, number = OddRecords(self.strict), 0
        for number, record in enumerate(self.split.rows(), 1):
            row = _Row(f"{self.split.where}, row {number}", record)
            try:
                task = None if self.columns.task is None else self._task(row, self.columns.task)
                text, targets, choices, turns = self._content(row)
                example = Example(str(number), text, targets, choices, turns=turns)
            except DataError as error:
                odd.add("rows", str(error))
                continue
            yield task, example
        odd.require_few("rows", number)
        if notes is not None:
            notes.update(odd.notes)

    def examples(self, notes: Counter[str] | None = None) -> Iterator[Example]:
        """Read the examples of a split that is one task."""
        for _, example in self.rows(notes):
            yield example

    @property
    def _names(self) -> tuple[str, ...] | None:
        """Names of the target's class labels, if it has them; with a column of choices, a label is the number of one."""
        return self.split.labels.get(self.columns.target or "") if self.columns.choices is None else None

    def _task(self, row: _Row, column: str) -> str:
        names = self.split.labels.get(column)
        return _label(row, column, names) if names else row.text(column)

    def _content(self, row: _Row) -> tuple[str, tuple[str, ...], tuple[str, ...], Messages]:
        """Input, targets and choices, and the messages that the input is."""
        messages: Messages = ()
        targets: tuple[str, ...]
        choices = () if self.columns.choices is None else row.texts(self.columns.choices)
        if self.form == "messages":
            messages, target = row.conversation("messages")
            text, targets = rendered(messages), (target,)
        elif self.form == "prompt":
            text, messages = row.said("prompt")
            targets = (row.said("completion", alone=True)[0],)
        else:
            text, (targets, choices) = row.text(str(self.columns.input)), self._targets(row, choices)
        if choices and not set(targets) <= set(choices):
            raise DataError(f"{row.where}: target {reprlib.repr(targets[0])} is none of the choices {reprlib.repr(choices)}")
        return text, targets, choices, messages

    def _targets(self, row: _Row, choices: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        column = self.columns.target
        if column is None:
            return row.texts(str(self.columns.targets)), choices
        if self._names:
            return (_label(row, column, self._names),), self._names
        if choices and isinstance(row.value(column), int):
            return (_label(row, column, choices),), choices
        return (row.text(column),), choices


@dataclass(frozen=True)
class _Row:
    """One row, whose values are what they should be or are complained of.

    Attributes:
        where: what errors call it.
        record: {column: value}.
    """

    where: str
    record: Record

    def value(self, column: str) -> Any:  # noqa: ANN401 - a row holds anything
        """A value; a dot leads to a field within a column, unless a column has the dot in its name."""
        if column in self.record:
            return self.record[column]
        value: Any = self.record
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def text(self, column: str) -> str:
        """A text that is not empty."""
        return self._text(self.value(column), f"column {column!r}")

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of texts, or a text as a list of one."""
        value = self.value(column)
        if not isinstance(value, list | tuple):
            return (self.text(column),)
        if not value:
            raise DataError(f"{self.where}: column {column!r} is an empty list")
        return tuple(self._text(each, f"column {column!r}, item {number}") for number, each in enumerate(value, 1))

    def said(self, column: str, *, alone: bool = False) -> tuple[str, Messages]:
        """A text, or what messages say, and these; `alone` allows a single message."""
        value = self.value(column)
        if not isinstance(value, list | tuple):
            return self.text(column), ()
        if alone and len(value) != 1:
            raise DataError(f"{self.where}: column {column!r} holds {len(value)} messages, not one")
        messages = self._messages(value, column)
        return rendered(messages), messages

    def conversation(self, column: str) -> tuple[Messages, str]:
        """What precedes the last message, and the last message, which must be the assistant's."""
        value = self.value(column)
        if not isinstance(value, list | tuple) or len(value) < 2:
            raise DataError(f"{self.where}: column {column!r} {_kind(value)}, not a list of two messages or more")
        *before, (role, answer) = self._messages(value, column)
        if role != "assistant":
            raise DataError(f"{self.where}: column {column!r} ends with a message of {role!r}, not of the assistant")
        return tuple(before), answer

    def _messages(self, value: Sequence[Any], column: str) -> Messages:
        """(role, content) of messages."""
        messages = []
        for number, message in enumerate(value, 1):
            what = f"column {column!r}, message {number}"
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise DataError(f"{self.where}: {what} {_kind(message)}, not a mapping of `role` and `content`")
            messages.append((self._text(message["role"], f"{what}, role"), self._text(message["content"], f"{what}, content")))
        if not messages:
            raise DataError(f"{self.where}: column {column!r} is an empty list")
        return tuple(messages)

    def _text(self, value: Any, what: str) -> str:  # noqa: ANN401
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{self.where}: {what} {_kind(value)}, not a text")
        if not is_unicode(value):
            raise DataError(f"{self.where}: {what} holds half of a surrogate pair, which is no character")
        return value


def rendered(messages: Messages) -> str:
    """Return what messages say as one text: a single message as it is; of several, a line each that begins with the role."""
    if len(messages) == 1:
        return messages[0][1]
    return "\n".join(f"{role.capitalize()}: {content}" for role, content in messages)


def _form(names: Collection[str], columns: Columns, where: str) -> tuple[Literal["columns", "prompt", "messages"], Columns]:
    """The form of rows with columns of these names, and the columns that say what in it."""
    if columns.input is not None:
        return "columns", columns
    if {"prompt", "completion"} <= set(names):
        return "prompt", columns
    if "messages" in names:
        return "messages", columns
    if "input" in names and ("target" in names or "targets" in names):
        target = "target" if "target" in names else None
        return "columns", Columns("input", target, None if target else "targets", columns.choices, columns.task)
    raise DataError(f"{where}: set prepare.columns: it has the columns {', '.join(names)}, and not {FORMS}")


def _label(row: _Row, column: str, names: Sequence[str]) -> str:
    """The name of a class label, or the choice of a number."""
    value = row.value(column)
    if isinstance(value, str) and value in names:
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(names):
        raise DataError(
            f"{row.where}: column {column!r} {_kind(value)}, not the number of one of {len(names)} labels or choices, from 0"
        )
    return names[value]


def _kind(value: Any) -> str:  # noqa: ANN401
    """What a value is, in words."""
    if value is None:
        return "is null"
    if isinstance(value, str):
        return f"is {reprlib.repr(value)}" if value.strip() else "is empty"
    if isinstance(value, bool):
        return f"is {str(value).lower()}"
    if isinstance(value, int | float):
        return f"is the number {value}"
    if isinstance(value, dt.date | dt.time):
        return f"is a date to `datasets` ({value}; CSV and Parquet keep its text)"
    return f"is a {'list' if isinstance(value, list | tuple) else type(value).__name__}"
