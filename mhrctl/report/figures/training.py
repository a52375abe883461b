"""A figure shows the loss of every pre-training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from mhrctl.config.cells import method_of
from mhrctl.config.colours import INK, PAPER
from mhrctl.report.figures.marks import handle
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.figures.sizes import TREND
from mhrctl.report.figures.style import LOOKS, Drawing, Line, Look, plain_ticks
from mhrctl.report.logs import Log, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Pre-training: loss by step"
LINES: tuple[Line, ...] = ("-", "--", ":")
"""Of the labels of one method."""
MARKERS = "osD^v"
"""Likewise, of their validation losses."""
SMOOTH = 10
"""A smooth line is the mean of the steps about each, this part of all that were logged."""
NO_LOGS = "No pre-training logs yet; run `mhrctl pretrain` or `dvc repro`."

Curve = tuple[str, Line, str]
"""A colour, a line, and the marker of its validation loss."""


def draw_training(logs: Sequence[Log], validation: Mapping[str, float] | None = None) -> Drawing:
    """Draw the plan of the same things as one picture."""
    return plan_training(logs, validation).drawing()


def plan_training(logs: Sequence[Log], validation: Mapping[str, float] | None = None) -> Plan:
    """Plan a line for each label, in the colour of its method, over pale ones for its seeds.

    Args:
        logs: of pre-training.
        validation: {cell: mean validation loss of its training tasks}, at the end; points where it is known.
    """
    if not logs:
        return Plan(TITLE, [], [NO_LOGS])
    at_end = validation or {}
    looks = _looks([label_of(log.cell) for log in logs])
    handles = [handle(label, colour, line=line) for label, (colour, line, _) in looks.items()]
    notes = [f"Lines: running mean over a {SMOOTH}th of the logged steps, mean over seeds; pale: each seed as it was logged."]
    if any(log.cell in at_end for log in logs):
        handles.append(handle("validation loss", INK, "o", hollow=True))
        notes.append("Hollow, at the end: mean validation loss of the training tasks, a point for each seed.")
    draw = partial(_draw, logs=logs, looks=looks, validation=at_end)
    return Plan(
        TITLE, [[Panel("training loss of a step", sum(len(log.steps) for log in logs), draw, handles, notes, height=4)]]
    )


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the running mean of losses, over those before and after each, as far as there are any."""
    half = len(losses) // SMOOTH // 2 + 1 if len(losses) >= TREND else 0
    return [fmean(losses[max(place - half, 0) : place + half + 1]) for place in range(len(losses))]


def _draw(axes: Axes, logs: Sequence[Log], looks: Mapping[str, Curve], validation: Mapping[str, float]) -> None:
    by_label: dict[str, list[Log]] = {}
    for log in logs:
        by_label.setdefault(label_of(log.cell), []).append(log)
    for label, (colour, line, marker) in looks.items():
        of_label = by_label[label]
        for log in of_label:
            axes.plot(log.steps, log.losses, line, color=colour, linewidth=0.8, alpha=0.3)
        steps, means = _mean_of(of_label)
        axes.plot(steps, means, line if len(steps) >= TREND else "o", color=colour, linewidth=1.8, label=label)
        ends = [(log.steps[-1], validation[log.cell]) for log in of_label if log.cell in validation and log.steps]
        axes.plot(*zip(*ends, strict=True), marker, color=colour, markerfacecolor=PAPER, markersize=6) if ends else None
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")


def _mean_of(logs: Sequence[Log]) -> tuple[list[int], list[float]]:
    """The steps that any seed logged, and the mean over the seeds that did of their smooth lines."""
    by_step: dict[int, list[float]] = {}
    for log in logs:
        for step, loss in zip(log.steps, smoothed(log.losses), strict=True):
            by_step.setdefault(step, []).append(loss)
    steps = sorted(by_step)
    return steps, [fmean(by_step[step]) for step in steps]


def _looks(labels: Sequence[str]) -> dict[str, Curve]:
    """{label: colour of its method, and a line and a marker of its own}, in the order of the methods table."""
    known = list(LOOKS)
    methods = {label: method_of(label) for label in labels}
    places = {label: known.index(method) if method in known else len(known) for label, method in methods.items()}
    ordered = sorted(methods, key=lambda label: (places[label], _natural(label)))
    seen: list[str] = []
    looks: dict[str, Curve] = {}
    for label in ordered:
        place = seen.count(methods[label])
        look: Look = LOOKS.get(methods[label], (INK, "o"))
        looks[label] = (look[0], LINES[place % len(LINES)], look[1] if place == 0 else MARKERS[place % len(MARKERS)])
        seen.append(methods[label])
    return looks


def _natural(label: str) -> list[tuple[int, str]]:
    """The words of a label with their numbers as numbers: h8 comes before h64."""
    return [(int(number or 0), word) for word, number in re.findall(r"(\D+)(\d*)", label)]
