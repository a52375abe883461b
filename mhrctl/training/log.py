"""The log of a training has a row of what some steps have come to, with the tokens that were seen until then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mhrctl.progress import Recorder

LOG_COLUMNS = ("step", "loss", "lr", "routing_lr", "tokens")
TOKENS = LOG_COLUMNS.index("tokens")


class TrainingLog:
    """A log is written by one training, of which there may be several one after the other.

    Attributes:
        rows: so far, those before a resumption included.
    """

    def __init__(
        self,
        columns: Sequence[str],
        recorder: Recorder,
        *,
        rows: list[list[Any]],
        first: int,
        tokens_of: Callable[[int], int],
        before: Sequence[Any] = (),
    ) -> None:
        """Begin a log, or go on with one.

        Args:
            columns: of the log: `LOG_COLUMNS`, and what else is measured.
            recorder: takes each row, with the tokens a second since the one before.
            rows: of the steps until `first`.
            first: steps taken before.
            tokens_of: says how many tokens a step of a number sees.
            before: the last row of the trainings that this one follows, from which the recorder counts on.
        """
        self.rows = rows
        self._columns, self._recorder, self._tokens_of, self._before = columns, recorder, tokens_of, before
        logged, tokens = (rows[-1][0], rows[-1][TOKENS]) if rows else (0, 0)
        self._tokens: int = tokens + sum(map(tokens_of, range(logged + 1, first + 1)))
        self._began, self._counted = time.monotonic(), self._tokens

    def count(self, step: int) -> None:
        """Count the tokens of a step that was taken."""
        self._tokens += self._tokens_of(step)

    @contextmanager
    def row(self, step: int, loss: float, rates: Sequence[float]) -> Iterator[list[Any]]:
        """Begin a row, to which other columns are appended; the time until it ends is none of training.

        Args:
            step: its number.
            loss: of its last micro-batch.
            rates: of the adapters, and of the routing if there is any.
        """
        seconds = time.monotonic() - self._began
        row = [step, round(loss, 5), rates[0], rates[1] if len(rates) > 1 else 0.0, self._tokens]
        yield row
        self.rows.append(row)
        values = dict(zip(self._columns, counted_on(row, self._before), strict=True))
        shown = {name: value for name, value in values.items() if name != "step" and value is not None}
        speed = (self._tokens - self._counted) / seconds
        self._recorder.log(values["step"], shown | {"tokens_per_second": speed})
        self._began, self._counted = time.monotonic(), self._tokens


def counted_on(row: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """Return a row whose steps and tokens are counted on from an earlier row, if there is one."""
    if not before:
        return list(row)
    return [row[0] + before[0], *row[1:TOKENS], row[TOKENS] + before[TOKENS], *row[TOKENS + 1 :]]


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something that is done every so many steps (0 is never) and in the last of `steps` is done in this one."""
    return every > 0 and (step % every == 0 or step == steps)
