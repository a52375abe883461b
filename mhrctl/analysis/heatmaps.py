"""Heat maps of tasks are drawn by skill and by task: a page each, as PNG and SVG, the same bytes for the same numbers."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhrctl.config.colours import BEHIND, DRAWN, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

STYLE = {**DRAWN, "font.size": 8, "axes.titlesize": 8, "figure.dpi": 150}
COLOURS = "RdBu_r"
"""Blue below and red above what is white, even weights or a cosine of 0: also the colour-blind tell them apart."""
SCALE = 0.998
"""This share of a page's weights is at most what the scale of colours ends at: a few great ones would leave the rest pale."""
MULTIPLES = {-3: "an eighth", -2: "a quarter", -1: "half", 1: "double", 2: "4 times", 3: "8 times"}
"""{logarithm: of an even weight}."""
BLANK = "#d9d9d9"
NAME_LENGTH = 40
"""So many characters of a task's name are shown."""
CHARACTER = 0.074
"""A character of a title takes so many inches."""
ROW, SIDES = 0.125, (1.2, 15.0)
"""A task's row takes so many inches, and all of them the least and the most of these; of more tasks not each is named."""
NAMED_COLUMNS = 40
"""So many tasks at most have their names under the columns too."""
COLUMN, WIDTHS = 0.14, (1.15, 3.4)
"""A skill's column takes so many inches, and a panel the least and the most of these."""
GAP, FOOTER, LINE = 0.3, 0.55, 0.14
"""So many inches are between panels, below them, and in a line of their titles."""
PAGE = 9.2
"""So many inches of panels stand side by side."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Panel:
    """A panel is one heat map of tasks by skill.

    Attributes:
        title: what it shows.
        values: [tasks, heads, skills].
        heads: the numbers of its heads, from 1; empty if it is of none in particular.
        label: of its columns.
    """

    title: str
    values: Array
    heads: Sequence[int]
    label: str


@dataclass(frozen=True)
class Matrix:
    """A matrix is one heat map of tasks by tasks.

    Attributes:
        title: what it shows.
        values: [tasks, tasks]; the diagonal is not shown.
    """

    title: str
    values: Array


def draw_by_skill(
    panels: Sequence[Panel],
    tasks: Sequence[str],
    stem: Path,
    *,
    title: str,
    tests: int = 0,
    formats: Mapping[str, str] = BEHIND,
) -> None:
    """Draw heat maps of tasks by skill side by side, with one logarithmic scale of colours about even weights.

    Args:
        panels: one or more.
        tasks: names of the rows.
        stem: the files' path without `.png` and `.svg`.
        title: of the page.
        tests: how many of the tasks, the last ones, are test tasks.
        formats: {format: what is behind the page}.
    """
    height = _side(len(tasks))
    titles = [_wrapped(panel.title, _width(panel) + GAP / 2) for panel in panels]
    header = _header(titles)
    places = list(_places(panels, header, height))
    right = max(left + _width(panel) for (left, _), panel in zip(places, panels, strict=True))
    multiples = [_multiples(panel.values) for panel in panels]
    values = np.concatenate([each.ravel() for each in multiples])
    reach = min(max(1, math.ceil(float(np.quantile(values, SCALE)))), max(MULTIPLES))
    with _page(right + 1, places[-1][1] + height + FOOTER, stem, title, formats) as figure:
        for panel, shown, wrapped, (left, top) in zip(panels, multiples, titles, places, strict=True):
            axes = _axes(figure, left, top, _width(panel), height)
            image = _heat(axes, shown.reshape(len(tasks), -1), wrapped, reach)
            _name_columns(axes, panel)
            _name_rows(axes, tasks if left == 0 else (), height, tests)
            _part(axes, len(tasks), tests)
        bar = _axes(figure, right + GAP, header, 0.15, height)
        ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
        figure.colorbar(image, cax=bar, extend=ends[bool(values.min() < -reach), bool(values.max() > reach)])
        even = f"even: {1 / panels[0].values.shape[2]:.3g}"
        names = {0: even} | {power: name for power, name in MULTIPLES.items() if abs(power) <= reach}
        bar.set_yticks(sorted(names), [names[power] for power in sorted(names)])
        bar.axhline(0, color=INK, linewidth=1.2)
        bar.set_ylabel("routing weight")


def draw_by_task(
    matrices: Sequence[Matrix],
    tasks: Sequence[str],
    stem: Path,
    *,
    title: str,
    tests: int = 0,
    formats: Mapping[str, str] = BEHIND,
) -> None:
    """Draw heat maps of tasks by tasks side by side, each with colours that go as far below 0 as above.

    Args:
        matrices: one or more.
        tasks: names of the rows and of the columns, which are in the same order.
        stem: the files' path without `.png` and `.svg`.
        title: of the page.
        tests: how many of the tasks, the last ones, are test tasks.
        formats: {format: what is behind the page}.
    """
    side = _side(len(tasks))
    step = side + 1.2
    titles = [_wrapped(matrix.title, side) for matrix in matrices]
    header = _header(titles)
    with _page(step * len(matrices), header + side + FOOTER, stem, title, formats) as figure:
        for number, (matrix, wrapped) in enumerate(zip(matrices, titles, strict=True)):
            # A task is always like itself: with the diagonal, the scale of colours would end at 1 whatever the others are.
            values = np.where(np.eye(len(tasks), dtype=bool), np.nan, matrix.values)
            shown = np.abs(values[np.isfinite(values)])
            reach = max(math.ceil(10 * shown.max() - 1e-6), 1) / 10 if shown.size else 1
            axes = _axes(figure, number * step, header, side, side)
            image = _heat(axes, values, wrapped, reach)
            _name_tasks_below(axes, tasks, tests)
            _name_rows(axes, () if number else tasks, side, tests)
            _part(axes, len(tasks), tests, both=True)
            bar = _axes(figure, number * step + side + 0.1, header, 0.15, side)
            figure.colorbar(image, cax=bar).set_label("cosine: 1 the same, 0 nothing in common")
            bar.axhline(0, color=INK, linewidth=1.2)


def _multiples(weights: Array) -> Array:
    """By how many doublings each weight is above an even one."""
    multiples: Array = np.log2(np.maximum(weights * weights.shape[2], 2.0**-60))
    return multiples


@contextmanager
def _page(width: float, height: float, stem: Path, title: str, formats: Mapping[str, str]) -> Iterator[Figure]:
    """Make a figure of so many inches, which is written when the block ends."""
    from matplotlib import style

    from mhrctl.analysis.page import Page

    # No pyplot and none of the user's style: nothing but the numbers decides the bytes.
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # of a task's name: the SVG has it as text
        figure = Page(figsize=(width, height))
        figure.text(0, 1, _one_line(title), va="bottom", fontsize=10, parse_math=False)
        yield figure
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if not axis.get_label_text()):
            axis.set_label_coords(0, 0)  # where a label that there is not would go would be worked out of all names
        for form, behind in formats.items():
            figure.is_laid_out = False
            metadata = {"Date": None} if form == "svg" else {"Software": None}
            figure.savefig(f"{stem}.{form}", bbox_inches="tight", pad_inches=0.15, metadata=metadata, facecolor=behind)


def _width(panel: Panel) -> float:
    _, heads, skills = panel.values.shape
    return min(max(int(heads * skills) * COLUMN, WIDTHS[0]), WIDTHS[1])


def _header(titles: Sequence[str]) -> float:
    """Inches above panels with these titles."""
    return 0.2 + LINE * max(title.count("\n") + 1 for title in titles)


def _places(panels: Sequence[Panel], header: float, height: float) -> Iterator[tuple[float, float]]:
    """Left and top of each panel, in inches, in rows of a page."""
    left, top = 0.0, header
    for panel in panels:
        if left and left + _width(panel) > PAGE:
            left, top = 0.0, top + height + FOOTER + header
        yield left, top
        left += _width(panel) + GAP


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the upper left."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes((left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height))


def _heat(axes: Axes, values: Array, title: str, reach: float) -> AxesImage:
    from matplotlib import colormaps

    colours = colormaps[COLOURS].with_extremes(bad=BLANK)
    axes.set_title(title, loc="left", y=1, parse_math=False)  # its place, which would be worked out of all names again
    axes.tick_params(length=1.5, pad=1.5)
    return axes.imshow(values, cmap=colours, vmin=-reach, vmax=reach, aspect="auto", interpolation="none")


def _name_columns(axes: Axes, panel: Panel) -> None:
    """Number the heads, each over its skills, or the skills of a single one."""
    _, heads, skills = panel.values.shape
    if heads == 1:
        names, centres = [str(skill + 1) for skill in range(skills)], list(range(skills))
    else:
        names, centres = list(map(str, panel.heads)), [head * skills + (skills - 1) / 2 for head in range(heads)]
        bounds = [head * skills - 0.5 for head in range(1, heads)]
        axes.vlines(bounds, *axes.get_ylim(), color=INK, linewidth=min(0.6, 3 * _width(panel) / heads))
    every = math.ceil(len(names) * CHARACTER * (len(names[-1]) + 1) / _width(panel))
    axes.set_xticks(centres[::every], names[::every])
    axes.set_xlabel(panel.label)


def _name_tasks_below(axes: Axes, tasks: Sequence[str], tests: int) -> None:
    """Name the columns as the rows are, where there are few enough."""
    if len(tasks) > NAMED_COLUMNS:
        axes.set_xticks([])
        axes.set_xlabel("tasks in the order of the rows")
        return
    names = [_shortened(task) for task in tasks]
    axes.set_xticks(range(len(tasks)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    for place, label in enumerate(axes.get_xticklabels()):
        label.set_fontweight("bold" if place >= len(tasks) - tests else "normal")


def _name_rows(axes: Axes, tasks: Sequence[str], height: float, tests: int) -> None:
    """Name the tasks, or as many as there is room for, the test tasks in bold."""
    every = math.ceil(len(tasks) * ROW / height - 1e-9) or 1
    shown = range(0, len(tasks), every)
    axes.set_yticks(list(shown), [_shortened(tasks[place]) for place in shown], parse_math=False)
    for place, label in zip(shown, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if place >= len(tasks) - tests else "normal")
    if every > 1:
        axes.set_ylabel(f"tasks; one in {every} is named")


def _part(axes: Axes, tasks: int, tests: int, *, both: bool = False) -> None:
    """Draw a line between training and test tasks, in the rows or in both directions."""
    if 0 < tests < tasks:
        axes.axhline(tasks - tests - 0.5, color=INK, linewidth=1)
        if both:
            axes.axvline(tasks - tests - 0.5, color=INK, linewidth=1)


def _side(tasks: int) -> float:
    return min(max(tasks * ROW, SIDES[0]), SIDES[1])


def _one_line(text: str) -> str:
    """A name as it can be shown: SVG has no control characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _shortened(name: str) -> str:
    name = _one_line(name)
    half = (NAME_LENGTH - 1) // 2
    return name if len(name) <= NAME_LENGTH else f"{name[:half]}…{name[-half:]}"


def _wrapped(text: str, width: float) -> str:
    """Break a title into lines of so many inches, after spaces and after the dots of a layer's name."""
    lines = [""]
    for piece in re.findall(r".+?(?:[. ]|$)", _one_line(text)):
        if lines[-1] and len(lines[-1] + piece.rstrip()) * CHARACTER > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)
