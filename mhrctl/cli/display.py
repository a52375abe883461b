"""The command line shows things in these ways: tables, progress, complaints."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.status import Status
from rich.text import Text

from mhrctl.errors import ParamsError, printable
from mhrctl.progress import PROGRESS_SECONDS, Bar, silent

SOON = 10.0
"""Seconds until the first of them."""
RECENT = 100
"""So many times at which steps were done make a pace."""
_spinners: list[Status] = []


class _Out(Console):
    """This is where a command's answers go: what is shown while it loads is gone before the first of them."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich has it
        """Print as rich does."""
        loaded()
        super().print(*objects, **options)


out = _Out(highlight=False)
err = Console(stderr=True, highlight=False)


def look_again() -> None:
    """Take in what the terminal is by now: a process that was forked has another than the one that imported this."""
    vars(out).update(vars(_Out(highlight=False)))
    vars(err).update(vars(Console(stderr=True, highlight=False)))


def complain(message: str) -> None:
    """Say in one line what is wrong."""
    err.print(_line(message, "error:", "bold red"), soft_wrap=True)


def warn(message: str) -> None:
    """Say in one line what goes on in spite of a failure."""
    err.print(_line(message, "warning:", "bold yellow"), soft_wrap=True)


def done(message: str) -> None:
    """Say what a command has written."""
    err.print(plain(message), soft_wrap=True)


def show(message: str) -> None:
    """Print a line of what was asked for."""
    out.print(plain(message), soft_wrap=True)


def can_ask() -> bool:
    """Return whether there is somebody to ask: a terminal that shows all there is to know, and takes an answer."""
    return _is_live() and sys.stdin.isatty() and out.is_terminal


def ask(question: str) -> bool:
    """Ask whether to do something; whatever is not yes is no."""
    err.print(plain(f"{question} [y/N] "), end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def echo(text: str) -> None:
    """Print what is not for people alone, such as JSON and CSV, as it is and to the end of its line."""
    loaded()
    typer.echo(text, nl=not text.endswith("\n"))


def plain(text: str) -> Text:
    """Return a text for rich to show as it is: what looks like markup, an emoji's name or a terminal's code is none."""
    return Text(printable(text, keep="\n"))


def title(text: str) -> Text:
    """Return a title of a table for rich to show as it is."""
    return Text(printable(text), style="table.title")


def _line(message: str, kind: str, style: str) -> Text:
    return Text.assemble((kind, style), " ", printable(" ".join(message.split())))


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress, self._task = progress, task
        self._left, self._pace = total, Pace()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._pace.count(steps)
        self._left -= steps
        fields: dict[str, Any] = {"note": printable(note)} if note else {}
        self._progress.update(self._task, advance=steps, speed=self._pace.speed, left=self._pace.left(self._left), **fields)

    def resume(self, steps: int) -> None:
        self._left -= steps
        self._progress.update(self._task, advance=steps)


class Pace:
    """A pace is how fast work goes on, by the last steps.

    The first one counts until there is another: before it comes what the others do not wait for, such as a first validation.
    """

    def __init__(self) -> None:
        self._marks = deque([(time.monotonic(), 0)], maxlen=RECENT)

    def count(self, steps: int) -> None:
        """Count steps that are done."""
        done_before = self._marks[-1][1]
        if len(self._marks) == 2 and not self._marks[0][1]:
            self._marks.popleft()
        self._marks.append((time.monotonic(), done_before + steps))

    @property
    def per_second(self) -> float:
        """Steps a second; 0 before the first."""
        (began, before), (ended, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(ended - began, 1e-9)

    @property
    def speed(self) -> str:
        """The pace in words, such as `8.1 steps/s` or `3.2 s/step`; nothing before the first step."""
        pace = self.per_second
        if not pace:
            return ""
        return f"{pace:.1f} steps/s" if pace >= 1 else f"{1 / pace:.1f} s/step"

    def left(self, steps: int) -> str:
        """Return how long so many steps will take, such as `44 s left`; nothing before the first step and after the last."""
        return f"{duration(steps / self.per_second)} left" if steps > 0 and self.per_second else ""


class _Lines:
    """Lines take the place of a bar where there is no terminal: one soon, then one every so many seconds."""

    def __init__(self, description: str, total: int, seconds: float) -> None:
        self._description, self._total, self._seconds = description, total, seconds
        self._done, self._note, self._pace = 0, "", Pace()
        self._due = time.monotonic() + min(SOON, seconds)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done, self._note = self._done + steps, note or self._note
        self._pace.count(steps)
        if self._seconds and self._done < self._total and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._seconds
            done(self.line())

    def resume(self, steps: int) -> None:
        self._done += steps
        if steps and self._seconds and not self._pace.per_second and self._done < self._total:
            done(f"{self._description}: goes on from step {self._done:,} of {self._total:,}")

    def line(self) -> str:
        left = self._pace.left(self._total - self._done)
        parts = [f"step {self._done:,} of {self._total:,}", self._note, self._pace.speed, left]
        return f"{self._description}: {', '.join(part for part in parts if part)}"


@contextmanager
def track(description: str, total: int, *, about: str = "") -> Iterator[Bar]:
    """Show a progress bar on a terminal, and lines elsewhere and in CI; of several processes, the first shows them."""
    loaded()
    if os.environ.get("RANK", "0") != "0":
        with silent(description, total) as bar:
            yield bar
    elif not _is_live():
        seconds = seconds_of(PROGRESS_SECONDS, 60.0)
        if about and seconds:
            done(f"{description}: {about}")
        yield _Lines(description, total, seconds)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        with Progress(*columns, console=err, transient=True) as progress:
            yield _RichBar(progress, progress.add_task(printable(description), total=total, note="", speed="", left=""), total)
        if about:  # a training, of which validation and writing can take a while
            _spin(f"finishing {description}")


def loading(what: str) -> None:
    """Show on a terminal that something takes its time to load, until `loaded`, the first progress or the first answer."""
    _spin(f"loading {what}")


def _spin(text: str) -> None:
    loaded()
    if _is_live() and os.environ.get("RANK", "0") == "0":
        _spinners.append(err.status(plain(text)))
        _spinners[-1].start()


def loaded() -> None:
    """Take away what `loading` shows."""
    while _spinners:
        _spinners.pop().stop()


def _is_live() -> bool:
    """Whether what is shown can change in place."""
    return err.is_terminal and not os.environ.get("CI")


def seconds_of(variable: str, default: float) -> float:
    """Return the seconds that a variable of the environment says.

    Raises:
        ParamsError: if they are none.
    """
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ParamsError(f"{variable} {text!r}: must be a number of seconds, 0 or more")
    return seconds


def duration(seconds: float) -> str:
    """Say seconds as people do: 12 s, 3 min 5 s, 2 h 10 min, 3 days 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"
