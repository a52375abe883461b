"""Figure 3 shows how far training tasks' gradients agree, and what more heads and more skills are worth."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mhrctl.config.methods import GREY
from mhrctl.report.aggregates import mean_std
from mhrctl.report.figures.sizes import draw_sizes, size_handles
from mhrctl.report.figures.style import (
    LOOKS,
    Drawing,
    Line,
    Look,
    add_legend,
    empty,
    handle,
    method_handles,
    new_figure,
    say_missing,
    shades,
    short_ticks,
)
from mhrctl.report.logs import Alignment, Log, label_of
from mhrctl.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Figure 3: gradient alignment; more heads or more skills"
ALIGNED = ("lora", "poly", "mhr")
PLAIN_LABEL = re.compile(rf"({'|'.join(ALIGNED)})( h\d+)?")
"""Of methods as they are; their variants are not drawn."""
KINDS: dict[str, Line] = {"shared": "-", "composed": "--"}
WHERE = {"shared": "shared skills", "composed": "composed adapters"}
SIZED = ("poly", "mhr")
MARKERS = "osD^v"
"""Of the labels of one method."""
MARKS = 20
"""Of a curve."""


def figure3(results: Results, logs: Sequence[Log], measured: Mapping[str, Sequence[Alignment]]) -> Drawing:
    """Draw the alignment by step of pre-training, and scores of poly and mhr by the parameters of a new task.

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
    looks = _looks(list(drawn))
    figure, axes = new_figure(14, 4.8, "LMR", TITLE)
    missing = [*_draw_alignment(axes["L"], drawn, looks), *draw_sizes(axes["M"], axes["R"], results, SIZED)]
    labels = [handle(label, colour, marker) for label, (colour, marker) in looks.items()]
    kinds = [handle(f"on the {WHERE[kind]}", line=line) for kind, line in KINDS.items()] if labels else []
    sized = [name for name in SIZED if any(group.method == name for group in results.adapted)]
    points = method_handles(name for name in sized if name not in {label.split()[0] for label in looks})
    add_legend(figure, [*labels, *points, *kinds, *(size_handles(results) if sized else [])], columns=7)
    return Drawing(TITLE, figure, tuple(missing))


def _draw_alignment(axes: Axes, by_label: Mapping[str, Sequence[Alignment]], looks: Mapping[str, Look]) -> list[str]:
    """Means over seeds, with a band of a standard deviation. Returns what is missing."""
    methods = {label.split()[0] for label in by_label}
    lacking = ", ".join(method for method in ALIGNED if method not in methods)
    missing = [f"No gradient alignment of {lacking} yet: set pretrain.align_every, or run `mhrctl align`."] if lacking else []
    if not by_label:
        empty(axes, missing)
        return missing
    for label, alignments in by_label.items():
        for kind, line in KINDS.items():
            _draw_curve(axes, [(at.step, getattr(at, kind)) for at in alignments], looks[label], line)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_title("agreement of training tasks' gradients", loc="left")
    axes.set_ylabel("mean cosine over pairs of tasks")
    short_ticks(axes.xaxis)
    say_missing(axes, "step of pre-training", missing)
    return missing


def _draw_curve(axes: Axes, points: Sequence[tuple[int, float]], look: Look, line: Line) -> None:
    colour, marker = look
    by_step: dict[int, list[float]] = defaultdict(list)
    for step, cosine in points:
        by_step[step].append(cosine)
    steps = sorted(by_step)
    over_seeds = [of_step for step in steps if (of_step := mean_std(by_step[step]))]
    means = [of_step.mean for of_step in over_seeds]
    axes.plot(
        steps, means, line, color=colour, marker=marker, markersize=4, markevery=max(1, len(steps) // MARKS), linewidth=1.4
    )
    band = [of_step.deviation or 0.0 for of_step in over_seeds]
    low, high = ([mean + sign * width for mean, width in zip(means, band, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)


def _order(label: str) -> tuple[int, int, str]:
    """By method, then by heads."""
    method, _, rest = label.partition(" ")
    heads = re.match(r"h(\d+)", rest)
    return (ALIGNED.index(method) if method in ALIGNED else len(ALIGNED), int(heads[1]) if heads else 0, rest)


def _looks(labels: Sequence[str]) -> dict[str, Look]:
    """{label: a shade of its method's colour and a marker}, no two of a method alike; the last has the colour itself."""
    of_method: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        of_method[label.split()[0]].append(label)
    return {
        label: (shade, MARKERS[place % len(MARKERS)])
        for method, alike in of_method.items()
        for place, (label, shade) in enumerate(zip(alike, shades(LOOKS[method][0], len(alike)), strict=True))
    }
