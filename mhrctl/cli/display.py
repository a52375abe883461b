"""The command line shows things in these ways: tables, progress, complaints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mhrctl.progress import Bar

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """Say in one line what is wrong."""
    err.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", soft_wrap=True)


def warn(message: str) -> None:
    """Say in one line what goes on in spite of a failure."""
    err.print(f"[bold yellow]warning:[/] {escape(' '.join(message.split()))}", soft_wrap=True)


def done(message: str) -> None:
    """Say what a command has written."""
    err.print(escape(message), soft_wrap=True)


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1, note: str = "") -> None:
        fields: dict[str, Any] = {"note": note} if note else {}
        self._progress.update(self._task, advance=steps, **fields)


@contextmanager
def track(description: str, total: int) -> Iterator[Bar]:
    """Show a progress bar on a terminal, and nothing elsewhere or in CI."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    quiet = not err.is_terminal or bool(os.environ.get("CI"))
    with Progress(*columns, console=err, disable=quiet, transient=True) as progress:
        yield _RichBar(progress, progress.add_task(description, total=total, note=""))
