"""Figure 3 shows how far training tasks' gradients agree, and what more heads and more skills are worth."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mhrctl.config.cells import method_of
from mhrctl.config.colours import INK, PAPER
from mhrctl.report.aggregates import mean_std
from mhrctl.report.figures.marks import ENOUGH, handle
from mhrctl.report.figures.plan import Panel, Plan
from mhrctl.report.figures.sizes import TREND, size_panels
from mhrctl.report.figures.style import LOOKS, Line, Look, shades, short_ticks
from mhrctl.report.logs import Alignment, Log, label_of
from mhrctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

TITLE = "Figure 3: gradient alignment; more heads or more skills"
ALIGNED = ("lora", "poly", "mhr")
PLAIN_LABEL = re.compile(rf"({'|'.join(ALIGNED)})(-h\d+)?")
"""Of methods as they are; their variants are not drawn."""
KINDS: dict[str, Line] = {"shared": "-", "composed": "--"}
WHERE = {"shared": "shared skills", "composed": "composed adapters"}
SIZED = ("poly", "mhr")
MARKERS = "osD^v"
"""Of the labels of one method."""
MARKS = 20
"""Of a curve."""


def figure3(results: Results, logs: Sequence[Log], measured: Mapping[str, Sequence[Alignment]]) -> Plan:
    """Plan the alignment by step of pre-training, and scores of poly and mhr by the parameters of a new task.

    Args:
        results: ours.
        logs: of pre-training; their alignments are drawn.
        measured: {label: alignments} at the start and the end, drawn where the logs of a label have none.
    """
    logged: dict[str, list[Alignment]] = defaultdict(list)
    for log in logs:
        logged[label_of(log.cell)] += log.alignments
    aligned = {label: logged[label] or list(measured.get(label, ())) for label in sorted({*logged, *measured}, key=_order)}
    drawn = {label: alignments for label, alignments in aligned.items() if alignments and PLAIN_LABEL.fullmatch(label)}
    return Plan(TITLE, [[_alignment(drawn), *size_panels(results, SIZED)]])


def _alignment(by_label: Mapping[str, Sequence[Alignment]]) -> Panel:
    """Means over seeds, with a band of a standard deviation."""
    methods = {method_of(label) for label in by_label}
    lacking = ", ".join(method for method in ALIGNED if method not in methods)
    missing = [f"No gradient alignment of {lacking} yet: set pretrain.align_every, or run `mhrctl align`."] if lacking else []
    looks = _looks(list(by_label))
    labels = [handle(label, colour, marker) for label, (colour, marker) in looks.items()]
    steps = {at.step for alignments in by_label.values() for at in alignments}
    seeds = max((len(of_step) for label in by_label.values() for of_step in _by_step(label, "shared").values()), default=0)
    notes = [f"Gradient alignment: mean over up to {seeds} seeds; bands: standard deviation."] if seeds >= ENOUGH else []
    return Panel(
        "agreement of training tasks' gradients",
        sum(map(len, by_label.values())),
        partial(_draw_alignment, by_label=by_label, looks=looks),
        [*labels, *(_kind(kind, are_lines=len(steps) >= TREND) for kind in KINDS)],
        notes,
        missing,
    )


def _kind(kind: str, *, are_lines: bool) -> Line2D:
    """What tells the two kinds apart: the lines, or where there are none the filling of the markers."""
    label = f"on the {WHERE[kind]}"
    return handle(label, INK, line=KINDS[kind]) if are_lines else handle(label, INK, "o", hollow=kind == "composed")


def _draw_alignment(axes: Axes, by_label: Mapping[str, Sequence[Alignment]], looks: Mapping[str, Look]) -> None:
    for label, alignments in by_label.items():
        for kind, line in KINDS.items():
            _draw_curve(axes, _by_step(alignments, kind), looks[label], line)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("mean cosine over pairs of tasks")
    axes.set_xlabel("step of pre-training")
    short_ticks(axes.xaxis)


def _by_step(alignments: Sequence[Alignment], kind: str) -> dict[int, list[float]]:
    by_step: dict[int, list[float]] = defaultdict(list)
    for at in alignments:
        by_step[at.step].append(getattr(at, kind))
    return by_step


def _draw_curve(axes: Axes, by_step: Mapping[int, Sequence[float]], look: Look, line: Line) -> None:
    colour, marker = look
    steps = sorted(by_step)
    over_seeds = [of_step for step in steps if (of_step := mean_std(by_step[step]))]
    means = [of_step.mean for of_step in over_seeds]
    axes.plot(
        steps,
        means,
        linestyle=line if len(steps) >= TREND else "none",
        color=colour,
        marker=marker,
        markerfacecolor=PAPER if line != KINDS["shared"] else colour,
        markersize=5,
        markevery=max(1, len(steps) // MARKS),
        linewidth=1.4,
    )
    band = [
        of_step.deviation or 0.0 if len(by_step[step]) >= ENOUGH else 0.0
        for step, of_step in zip(steps, over_seeds, strict=True)
    ]
    low, high = ([mean + sign * width for mean, width in zip(means, band, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)


def _order(label: str) -> tuple[int, int, str]:
    """By method, then by heads."""
    method, _, rest = label.partition("-")
    heads = re.match(r"h(\d+)", rest)
    return (ALIGNED.index(method) if method in ALIGNED else len(ALIGNED), int(heads[1]) if heads else 0, rest)


def _looks(labels: Sequence[str]) -> dict[str, Look]:
    """{label: a shade of its method's colour and a marker}, no two of a method alike; the last has the colour itself."""
    of_method: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        of_method[method_of(label)].append(label)
    return {
        label: (shade, MARKERS[place % len(MARKERS)])
        for method, alike in of_method.items()
        for place, (label, shade) in enumerate(zip(alike, shades(LOOKS[method][0], len(alike)), strict=True))
    }
