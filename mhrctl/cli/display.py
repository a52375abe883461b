"""The command line shows things in these ways: tables, progress, complaints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from mhrctl.errors import printable
from mhrctl.progress import Bar

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


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


def plain(text: str) -> Text:
    """Return a text for rich to show as it is: what looks like markup, an emoji's name or a terminal's code is none."""
    return Text(printable(text, keep="\n"))


def title(text: str) -> Text:
    """Return a title of a table for rich to show as it is."""
    return Text(printable(text), style="table.title")


def _line(message: str, kind: str, style: str) -> Text:
    return Text.assemble((kind, style), " ", printable(" ".join(message.split())))


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1, note: str = "") -> None:
        fields: dict[str, Any] = {"note": printable(note)} if note else {}
        self._progress.update(self._task, advance=steps, **fields)


@contextmanager
def track(description: str, total: int) -> Iterator[Bar]:
    """Show a progress bar on a terminal, and nothing elsewhere or in CI."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    quiet = not err.is_terminal or bool(os.environ.get("CI"))
    with Progress(*columns, console=err, disable=quiet, transient=True) as progress:
        yield _RichBar(progress, progress.add_task(printable(description), total=total, note=""))
