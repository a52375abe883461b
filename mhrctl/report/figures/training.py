"""A figure shows the loss of every pre-training."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.config.methods import GREY
from mhrctl.report.figures.style import LOOKS, Drawing, Line, add_legend, empty, handle, new_figure, plain_ticks, styled
from mhrctl.report.logs import Log, label_of

TITLE = "Pre-training: loss by step"
LINES: tuple[Line, ...] = ("-", "--", ":")
"""Of the labels of one method."""


def draw_training(logs: Sequence[Log]) -> Drawing:
    """Draw a line for each cell, in the colour of its method; the seeds of a method look the same."""
    with styled():
        figure, axes = new_figure(10, 4.6, "A", TITLE)
        missing = [] if logs else ["No pre-training logs yet; run `mhrctl pretrain` or `dvc repro`."]
        if missing:
            empty(axes["A"], missing)
            return Drawing(TITLE, figure, tuple(missing))
        looks = _looks([label_of(log.cell) for log in logs])
        for log in logs:
            colour, line = looks[label_of(log.cell)]
            axes["A"].plot(log.steps, log.losses, line, color=colour, linewidth=1.2, alpha=0.8)
        axes["A"].set_yscale("log")
        plain_ticks(axes["A"].yaxis)
        axes["A"].set_xlabel("step")
        axes["A"].set_ylabel("training loss of a step")
        add_legend(figure, [handle(label, colour, line=line) for label, (colour, line) in looks.items()], columns=6)
    return Drawing(TITLE, figure, ())


def _looks(labels: Sequence[str]) -> dict[str, tuple[str, Line]]:
    """{label: colour of its method, and a line of its own}, in the order of the methods table."""
    known = list(LOOKS)
    methods = {label: label.split(maxsplit=1)[0] for label in labels}
    ordered = sorted(methods, key=lambda label: (known.index(methods[label]) if methods[label] in known else len(known), label))
    seen: list[str] = []
    looks: dict[str, tuple[str, Line]] = {}
    for label in ordered:
        looks[label] = (LOOKS.get(methods[label], (GREY, ""))[0], LINES[seen.count(methods[label]) % len(LINES)])
        seen.append(methods[label])
    return looks
