"""All figures look alike: a colour and a marker for each method, filled for ours and hollow for the paper's."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mhrctl.config.methods import BACKBONE, GREY, METHODS
from mhrctl.report.printed import MeanStd
from mhrctl.report.results import ORDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Format = Literal["png", "svg"]
Line = Literal["-", "--", ":", "none"]
Place = Literal["above", "below"]
Size = Literal["big", "small"]
Look = tuple[str, str]
"""A colour and a marker."""
FORMATS: tuple[Format, ...] = ("png", "svg")
STYLE = {
    "svg.hashsalt": "mhrctl",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
METADATA: dict[Format, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
ROOM = 0.12
"""Below and above what is drawn, for names, as a part of its height."""
EDGE = 0.5
"""Points of white around a marker of ours, which tell it from one beneath it."""
NARROW = 4
"""A greater over a lesser end that an axis of counts has at least: counts that are all but equal look so."""
PALE = 0.55
"""Of white in the palest shade."""
WIDE = 30
"""A greater over a lesser count from which on powers of ten are ticks enough."""

SIZES: dict[Size, float] = {"big": 7, "small": 5}
"""Of markers, in points; a star is a third larger."""
NAME: dict[str, Any] = {
    "fontsize": 7,
    "color": "#444444",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    "zorder": 4,
}
"""How names of points look: on white, so that a line behind them leaves them readable."""
PLACES: dict[Place, tuple[int, int]] = {"above": (4, 4), "below": (4, -10)}
"""Of a point's name, in points of type from the point."""

LOOKS: dict[str, Look] = {BACKBONE: ("black", "*")} | {row.name: row.look for row in METHODS.values()}
"""{method: its colour and marker}, as the methods table has them."""


@dataclass(frozen=True)
class Drawing:
    """A drawing is a figure, and what it would show if there were results of it.

    Attributes:
        title: of the figure.
        figure: matplotlib's.
        missing: sentences, which stand in the figure too.
    """

    title: str
    figure: Figure
    missing: tuple[str, ...]

    def rendered(self, form: Format) -> bytes:
        """Return the figure as a file of this format: the same bytes for the same figure."""
        stream = io.BytesIO()
        with styled():
            self.figure.savefig(stream, format=form, metadata=METADATA[form])
        return stream.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save within these settings, whatever the user's are."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float, layout: str, title: str, **widths: Any) -> tuple[Figure, dict[str, Axes]]:  # noqa: ANN401
    """Make a figure.

    Args:
        width: in inches.
        height: in inches.
        layout: of the axes, as `subplot_mosaic` reads it: `AB;CC`.
        title: of the figure.
        widths: of columns and rows, as `subplot_mosaic` takes them.

    Returns:
        The figure, and its axes by letter.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes: dict[str, Axes] = figure.subplot_mosaic(layout, **widths)
    return figure, axes


def mark(
    axes: Axes,
    x: float,
    y: float,
    look: Look,
    *,
    ours: bool,
    x_std: MeanStd | None = None,
    y_std: MeanStd | None = None,
    size: Size = "big",
) -> None:
    """Draw a score with its deviation: filled if it is ours, hollow if it is the paper's."""
    colour, marker = look
    errors = [of_axis.deviation if of_axis else None for of_axis in (x_std, y_std)]
    point, *_ = axes.errorbar(
        x,
        y,
        xerr=errors[0],
        yerr=errors[1],
        fmt=marker,
        color=colour,
        markerfacecolor=colour if ours else "white",
        markersize=SIZES[size] * (4 / 3 if marker == "*" else 1),
        elinewidth=1,
        capsize=2,
        alpha=0.9,
        zorder=3 if ours else 2.5,
    )
    if ours and marker != "X":  # whose arms it would eat
        point.set(markeredgecolor="white", markeredgewidth=EDGE, markersize=point.get_markersize() + 1)


def shades(colour: str, count: int) -> list[str]:
    """Return so many shades of a colour, from a pale one to the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(colour)
    paler = [PALE * (count - 1 - place) / max(1, count - 1) for place in range(count)]
    return [to_hex((red + (1 - red) * white, green + (1 - green) * white, blue + (1 - blue) * white)) for white in paler]


def handle(
    label: str, colour: str = "black", marker: str = "", line: Line = "none", *, hollow: bool = False, size: Size = "big"
) -> Line2D:
    """Make an entry of a legend."""
    from matplotlib.lines import Line2D

    face = "white" if hollow else colour
    return Line2D(
        [], [], color=colour, marker=marker, linestyle=line, markerfacecolor=face, markersize=SIZES[size], label=label
    )


def method_handles(methods: Iterable[str]) -> list[Line2D]:
    """Make the legend's entries of these methods, in the order of the methods table."""
    return [handle(method, *LOOKS[method]) for method in sorted(set(methods), key=ORDER.index)]


def add_legend(figure: Figure, handles: Sequence[Line2D], columns: int = 8) -> None:
    """Add the one legend of a figure, under its axes."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), handletextpad=0.4)


def say_missing(axes: Axes, label: str, missing: Sequence[str], width: int = 60) -> None:
    """Write what is missing under the label of the x axis."""
    axes.set_xlabel("\n".join([label, *(line for text in missing for line in textwrap.wrap(text, width))]))


def empty(axes: Axes, missing: Sequence[str]) -> None:
    """Draw axes with nothing but what is missing."""
    axes.set_axis_off()
    text = "\n".join(textwrap.fill(sentence, 42) for sentence in missing)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)


def annotate(axes: Axes, text: str, x: float, y: float, place: Place) -> None:
    """Name a point, at this place beside it."""
    axes.annotate(text, (x, y), xytext=PLACES[place], textcoords="offset points", **NAME)


def scale_parameters(axes: Axes, label: str, missing: Sequence[str] = ()) -> None:
    """Make the x axis one of counts, by powers of ten; to be called when all is drawn."""
    axes.set_xscale("log")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    if high < NARROW * low:
        middle = (low * high / NARROW) ** 0.5
        low, high = axes.set_xlim(middle, middle * NARROW)
    plain_ticks(axes.xaxis, (1,) if high > WIDE * low else (1, 2, 3, 5))
    say_missing(axes, label, missing)


def short_ticks(axis: Axis) -> None:
    """Write the counts of an axis as people read them."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def plain_ticks(axis: Axis, digits: Sequence[int] = (1, 2, 5)) -> None:
    """Name these digits of each power of ten on a logarithmic axis, as people read them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=digits))
    short_ticks(axis)
    axis.set_minor_formatter(NullFormatter())


def short(count: float) -> str:
    """Write a round count: 500, 2K, 10M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
