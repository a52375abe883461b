"""`mhrctl run` shows itself: the plan, a live table on a terminal, plain lines elsewhere, and what failed."""

from __future__ import annotations

import os
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mhrctl.cli import display
from mhrctl.errors import counted, listed
from mhrctl.running.pipeline import State
from mhrctl.running.plan import Action, Planned
from mhrctl.running.progress import ENDED, STOPPED, Entry, Progress
from mhrctl.tools.run import View

SHOWN = 12
"""So many running jobs are listed by the live table."""
_CELL_FILE = re.compile(r"(params changed: )?data/cells/\S+\.json ")
_AFTER = re.compile(r"after ([^@ ]+).*")
TAIL = 8192
"""Bytes at the end of a log in which progress is looked for."""
PROGRESS = re.compile(r"^\S.*: (step [\d,]+ of [\d,]*\d(?:, (?:loss|validation) [-\d.a-z]+)?)", re.MULTILINE)
STYLES = {State.RUNNING: "cyan", State.DONE: "green", State.FAILED: "bold red", State.BLOCKED: "red"}


def make_view() -> View:
    """Choose the live table on a terminal, and plain lines elsewhere or in CI."""
    return PlainView() if not display.err.is_terminal or os.environ.get("CI") else LiveView()


class PlainView:
    """This view has a line for whatever starts or ends; stages that need not run are counted at the end only."""

    def __init__(self) -> None:
        self._progress = Progress({})

    @contextmanager
    def showing(self, progress: Progress, at_once: int) -> Iterator[None]:  # noqa: ARG002 - the protocol's arguments
        """Show a run until the block ends."""
        self._progress = progress
        yield

    def changed(self, name: str) -> None:
        """Print what has become of a stage."""
        entry = self._progress.stages[name]
        if entry.state is not State.UNCHANGED:
            display.done(_line(name, entry) + ("" if entry.state is State.RUNNING else f"  [{_ended(self._progress)}]"))

    def report(self, line: str) -> None:
        """Print a line."""
        display.done(line)


class LiveView:
    """This view is a table of cells by stage and state, what runs, and the time left."""

    def __init__(self) -> None:
        self._progress, self._at_once = Progress({}), 1

    @contextmanager
    def showing(self, progress: Progress, at_once: int) -> Iterator[None]:
        """Show a run until the block ends."""
        self._progress, self._at_once = progress, at_once
        display.loaded()
        with Live(get_renderable=self._table, console=display.err, refresh_per_second=4):
            yield

    def changed(self, name: str) -> None:
        """Print failures above the table, which shows the rest by itself."""
        entry = self._progress.stages[name]
        if entry.state is State.FAILED:
            display.done(_line(name, entry))

    def report(self, line: str) -> None:
        """Print a line above the table."""
        display.done(line)

    def _table(self) -> RenderableType:
        return Group(_counts(self._progress), _jobs(self._progress), _bar(self._progress, self._at_once))


def show_plan(plan: Sequence[Planned], *, stages: bool = False) -> None:
    """Show what a run would do, and why.

    Args:
        plan: the stages, in the order of a run.
        stages: show each of them, and not those together that would do the same for the same reason.
    """
    busy = [planned for planned in plan if planned.action is not Action.NOTHING]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    folded = ("because",) if stages else ("because", "cells")
    for column in ("stage", "would", *folded) if stages else ("", "stage", "would", *folded):
        shown.add_column(column, no_wrap=column not in folded, overflow="fold", justify="left" if column else "right")
    if stages:
        for planned in busy:
            shown.add_row(*map(display.plain, (planned.name, planned.action, "; ".join(planned.reasons))))
    else:
        for (stage, action, because), names in _alike(busy).items():
            shown.add_row(*map(display.plain, (str(len(names)), stage, action, because, _cells(names))))
    if shown.row_count:
        display.out.print(shown)
    counts = Counter(planned.action for planned in plan)
    more = "; --stages lists them all" if busy and not stages else ""
    actions = ", ".join(f"{counts[action]} {action}" for action in Action if counts[action])
    display.out.print(f"{counted(len(plan), 'stage')}: {actions}{more}")


def _alike(plan: Sequence[Planned]) -> dict[tuple[str, str, str], list[str]]:
    """{stage, what it would do, why, without names of cells: the stages of dvc.yaml for which that holds}."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for planned in plan:
        lasting = [_CELL_FILE.sub("", reason) for reason in planned.reasons if not _AFTER.match(reason)]
        first = [_AFTER.sub(r"if \1 changes", reason) for reason in planned.reasons]
        would = "then" if planned.action is Action.MAYBE else str(planned.action)
        key = planned.name.partition("@")[0], would, "; ".join(dict.fromkeys(lasting or first))
        groups.setdefault(key, []).append(planned.name)
    return groups


def _cells(names: Sequence[str]) -> str:
    """The cells of stages, in short: `lora, mhr-h8; seeds 0, 1` where each has all of the seeds."""
    cells = [cell for name in names if (cell := name.partition("@")[2])]
    split = [cell.rpartition("-s") for cell in cells]
    points, seeds = dict.fromkeys(point for point, _, _ in split), dict.fromkeys(seed for _, _, seed in split)
    if len(cells) < 2 or not all(point and seed.isdigit() for point, _, seed in split) or len(points) * len(seeds) > len(cells):
        return listed(cells, SHOWN)
    return f"{listed([*points], SHOWN)}; seed{'s' if len(seeds) > 1 else ''} {listed([*seeds], SHOWN)}"


def conclude(progress: Progress, seconds: float) -> None:
    """Say how a run has ended and what comes next, and show the last lines of what failed."""
    for name, entry in progress.bad().items():
        if entry.state is State.FAILED:
            display.done(_line(name, entry))
            for line in _tail(entry.log) if entry.log else []:
                display.done(f"    {line}")
            if entry.log:
                display.done(f"    log: {_relative(entry.log)}")
    display.done(_conclusion(progress, seconds))


def _conclusion(progress: Progress, seconds: float) -> str:
    """How a run has ended and what comes next, in a line."""
    counts = progress.count()
    done = sum(counts[state] for state in (State.DONE, State.CACHED, State.UNCHANGED))
    if progress.stopping:
        stopped = sum(entry.note == STOPPED for entry in progress.stages.values())
        ended = f", {counted(stopped, 'job')} ended" if stopped else ""
        return f"stopped: {done} of {counted(len(progress.stages), 'stage')} done{ended}; mhrctl run goes on from here"
    if progress.bad():
        states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
        said = f"{counted(len(progress.stages), 'stage')}: {states}; {display.duration(seconds)}"
        return f"{said}. When that is put right, mhrctl run goes on from here"
    current, ran = counts[State.UNCHANGED], counts[State.DONE] + counts[State.CACHED]
    if not ran:
        return f"nothing to do: {counted(current, 'stage')} up to date. Next: mhrctl report"
    cached = f" ({counts[State.CACHED]} from DVC's cache)" if counts[State.CACHED] else ""
    before = f", {current} {'was' if current == 1 else 'were'} up to date" if current else ""
    return f"done: {counted(ran, 'stage')} in {display.duration(seconds)}{cached}{before}. Next: mhrctl report"


def last_progress(log: Path) -> str:
    """Return what the last line of progress in a job's log says, without its name and speed; nothing if there is none."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
        if lines := PROGRESS.findall(stream.read().decode(errors="replace")):
            return str(lines[-1])
    return ""


def _tail(log: Path, lines: int = 10) -> list[str]:
    """The last lines of a log."""
    with suppress(OSError), log.open(errors="replace") as stream:
        return [line.rstrip("\n") for line in deque(stream, lines)]
    return []


def _line(name: str, entry: Entry) -> str:
    took = [display.duration(entry.seconds)] if entry.seconds is not None and entry.state in (State.DONE, State.FAILED) else []
    return "  ".join([f"{entry.state:<8}", name, *took, *([entry.note] if entry.note else [])])


def _ended(progress: Progress) -> str:
    return f"{sum(count for state, count in progress.count().items() if state in ENDED)}/{len(progress.stages)}"


def _counts(progress: Progress) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("stage", no_wrap=True)
    for state in State:
        shown.add_column(state, justify="right", style=STYLES.get(state, ""))
    for stage, counts in progress.by_stage().items():
        shown.add_row(display.plain(stage), *(_number(counts, state) for state in State))
    return shown


def _number(counts: Mapping[State, int], state: State) -> str:
    return str(counts[state]) if counts[state] else ""


def _jobs(progress: Progress) -> Table:
    shown = Table.grid(padding=(0, 2, 0, 0))
    running = progress.running()
    for name, entry in list(running.items())[:SHOWN]:
        seconds = display.duration(time.time() - (entry.started or time.time()))
        shown.add_row(*map(display.plain, (name, seconds, entry.note or (last_progress(entry.log) if entry.log else ""))))
    if len(running) > SHOWN:
        shown.add_row(f"and {len(running) - SHOWN} more")
    return shown


def _bar(progress: Progress, at_once: int) -> Table:
    ended = sum(count for state, count in progress.count().items() if state in ENDED)
    shown = Table.grid(padding=(0, 2, 0, 0))
    left = None if progress.stopping else progress.seconds_left(at_once)
    estimate = "" if left is None or left[0] < 1 else f"{'about' if left[1] else 'more than'} {display.duration(left[0])} left"
    shown.add_row(ProgressBar(total=len(progress.stages), completed=ended, width=40), f"{_ended(progress)} stages", estimate)
    return shown


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
