"""A figure is planned as panels, and drawn as one picture or as a picture for each panel, which wrap on a narrow page.

A panel with fewer than two points has no axes: what is missing for them is a sentence.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mhrctl.report.figures.style import Drawing, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FEWEST = 2
"""Points that are worth axes."""
WIDTHS = (7.5, 9.5, 12.5)
"""Inches of a figure whose rows have one panel, two, or three and more."""
ALONE = 4.3
"""Inches of a panel that is a picture of its own: at 400 pixels its letters are as large as the page's."""
TITLE, LINE, ENTRIES, EDGE = 0.4, 0.165, 0.21, 0.08
"""Inches of the title, of a line of notes, of a row of the legend, and around all."""
CHARACTERS = 16
"""Of a line of notes, to an inch."""
COLUMN = 1.4
"""Inches of an entry of the legend."""


@dataclass(frozen=True)
class Panel:
    """A panel is one pair of axes.

    Attributes:
        title: over it.
        points: how many it has.
        draw: draws them.
        handles: of its legend.
        notes: sentences without which it cannot be read.
        missing: sentences, of what it would show too if there were results of it.
        instead: sentences, of what it has where that is too little for axes.
        height: in inches.
    """

    title: str
    points: int
    draw: Callable[[Axes], None]
    handles: Sequence[Line2D] = ()
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()
    instead: Sequence[str] = ()
    height: float = 3.3

    @property
    def is_drawn(self) -> bool:
        """Whether there is enough for axes."""
        return self.points >= FEWEST


@dataclass(frozen=True)
class Plan:
    """A plan is of one figure.

    Attributes:
        title: of the figure.
        rows: panels beside each other, from top to bottom.
        missing: sentences of the whole figure.
    """

    title: str
    rows: Sequence[Sequence[Panel]]
    missing: Sequence[str] = ()

    @property
    def drawn(self) -> list[Panel]:
        """The panels that have axes."""
        return [panel for row in self.rows for panel in row if panel.is_drawn]

    @property
    def all_missing(self) -> tuple[str, ...]:
        """What is missing, each sentence once."""
        panels = [panel for row in self.rows for panel in row]
        of_panels = [sentence for of in panels for sentence in (*([] if of.is_drawn else of.instead), *of.missing)]
        return tuple(dict.fromkeys([*self.missing, *of_panels]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read it, each sentence once."""
        return tuple(dict.fromkeys(note for panel in self.drawn for note in panel.notes))

    def drawing(self) -> Drawing:
        """Draw all panels as one picture, with its notes and what is missing below them."""
        with styled():
            figure = self._figure()
        return Drawing(self.title, figure, self.all_missing, self.notes)

    def apart(self) -> list[Drawing]:
        """Draw each panel as a picture of its own, without its sentences, which a page has as text."""
        with styled():
            return [Drawing(panel.title, _alone(panel), tuple(panel.missing), tuple(panel.notes)) for panel in self.drawn]

    def _figure(self) -> Figure:
        rows = [shown for row in self.rows if (shown := [panel for panel in row if panel.is_drawn])]
        width = WIDTHS[min(max(map(len, rows), default=1), len(WIDTHS)) - 1]
        lines = [line for text in (*self.notes, *self.all_missing) for line in textwrap.wrap(text, int(width * CHARACTERS))]
        handles = _once(self.drawn)
        heights = [max(panel.height for panel in row) for row in rows]
        figure, below = _figure_of(width, heights, len(handles), lines=len(lines), title=self.title)
        if rows:
            grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
            for place, row in enumerate(rows):
                columns = grid[place].subgridspec(1, len(row))
                for column, panel in enumerate(row):
                    _draw(figure.add_subplot(columns[0, column]), panel)
        _add_legend(figure, handles, width, below)
        for place, line in enumerate(reversed(lines)):
            y = (EDGE + (place + 0.5) * LINE) / figure.get_figheight()
            figure.text(EDGE / width, y, line, va="center", fontsize=8)
        return _settled(figure)


def _alone(panel: Panel) -> Figure:
    handles = _once([panel])
    figure, below = _figure_of(ALONE, [panel.height], len(handles))
    _draw(figure.add_subplot(), panel)
    _add_legend(figure, handles, ALONE, below)
    return _settled(figure)


def _settled(figure: Figure) -> Figure:
    """Lay a figure out for good: the solver's last digits differ from run to run, and must not decide the bytes."""
    if figure.axes and (engine := figure.get_layout_engine()):
        engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(part, 5) for part in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    return figure


def _figure_of(
    width: float, heights: Sequence[float], entries: int, *, lines: int = 0, title: str = ""
) -> tuple[Figure, float]:
    """Make a figure whose axes keep clear of its title, its legend and its notes. Returns it, and the inches of its notes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    below = EDGE + lines * LINE
    legend = -(-entries // int(width / COLUMN)) * ENTRIES + (EDGE if entries else 0)
    above = TITLE if title else 0
    height = above + sum(heights) + legend + below + EDGE
    rect = (0, (below + legend) / height, 1, (height - above - below - legend) / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=EDGE, h_pad=EDGE, rect=rect))
    if title:
        place = 1 - TITLE / 2 / height
        figure.text(EDGE / width, place, title, va="center", fontsize=12, fontweight="bold")
    return figure, below


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", y=1)
    panel.draw(axes)


def _once(panels: Sequence[Panel]) -> list[Line2D]:
    """The entries of the legend of panels, each label once."""
    by_label: dict[Any, Line2D] = {}
    for panel in panels:
        for entry in panel.handles:
            by_label.setdefault(entry.get_label(), entry)
    return list(by_label.values())


def _add_legend(figure: Figure, handles: Sequence[Line2D], width: float, below: float) -> None:
    """Add the one legend of a figure, under its axes."""
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            bbox_to_anchor=(0.5, below / figure.get_figheight()),
            ncols=min(int(width / COLUMN), len(handles)),
            handletextpad=0.4,
            borderpad=0.1,
            labelspacing=0.3,
            columnspacing=1.2,
        )
