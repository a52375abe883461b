"""All figures look alike: one ink, one paper, and a colour and a marker for each method."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mhrctl.config.colours import BEHIND, DRAWN, INK, PAPER
from mhrctl.config.methods import BACKBONE, METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
Line = Literal["-", "--", ":", "none"]
Place = Literal["above", "below"]
Size = Literal["big", "small"]
Look = tuple[str, str]
"""A colour and a marker."""
FORMATS: tuple[Format, ...] = ("png", "svg")
STYLE = {
    **DRAWN,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
METADATA: dict[Format, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
ROOM = 0.12
"""Below and above what is drawn, for names, as a part of its height."""
NARROW = 4
"""A greater over a lesser end that an axis of counts has at least: counts that are all but equal look so."""
PALE = 0.55
"""Of white in the palest shade."""
WIDE = 30
"""A greater over a lesser count from which on powers of ten are ticks enough."""
NAME: dict[str, Any] = {
    "fontsize": 8,
    "color": INK,
    "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    "zorder": 4,
}
"""How names of points look: on paper, so that a line behind them leaves them readable."""
PLACES: dict[Place, tuple[int, int]] = {"above": (4, 4), "below": (4, -11)}
"""Of a point's name, in points of type from the point."""

LOOKS: dict[str, Look] = {BACKBONE: (INK, "*")} | {row.name: row.look for row in METHODS.values()}
"""{method: its colour and marker}, as the methods table has them."""


@dataclass(frozen=True)
class Drawing:
    """A drawing is a figure, and what it would show if there were results of it.

    Attributes:
        title: of the figure.
        figure: matplotlib's.
        missing: sentences.
        notes: sentences without which it cannot be read, such as what its bars are.
    """

    title: str
    figure: Figure
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def rendered(self, form: Format, *, behind: str | None = None) -> bytes:
        """Return the figure as a file: the same bytes for the same figure.

        Args:
            form: of the file.
            behind: the colour of its background; None for none in an SVG, and the paper in a PNG.
        """
        stream = io.BytesIO()
        with styled():
            self.figure.savefig(stream, format=form, metadata=METADATA[form], facecolor=behind or BEHIND[form])
        return stream.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save within these settings, whatever the user's are; within them already, nothing changes."""
    from matplotlib import style

    if _STYLED.get():
        yield
        return
    token = _STYLED.set(True)
    try:
        with style.context(["default", STYLE]):
            yield
    finally:
        _STYLED.reset(token)


_STYLED: ContextVar[bool] = ContextVar("styled", default=False)


def shades(colour: str, count: int) -> list[str]:
    """Return so many shades of a colour, from a pale one to the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(colour)
    paler = [PALE * (count - 1 - place) / max(1, count - 1) for place in range(count)]
    return [to_hex((red + (1 - red) * white, green + (1 - green) * white, blue + (1 - blue) * white)) for white in paler]


def annotate(axes: Axes, text: str, x: float, y: float, place: Place) -> None:
    """Name a point, at this place beside it."""
    axes.annotate(text, (x, y), xytext=PLACES[place], textcoords="offset points", **NAME)


def scale_parameters(axes: Axes, label: str) -> None:
    """Make the x axis one of counts, by powers of ten; to be called when all is drawn."""
    axes.set_xscale("log")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    if high < NARROW * low:
        middle = (low * high / NARROW) ** 0.5
        low, high = axes.set_xlim(middle, middle * NARROW)
    plain_ticks(axes.xaxis, (1,) if high > WIDE * low else (1, 2, 3, 5))
    axes.set_xlabel(label)


def short_ticks(axis: Axis) -> None:
    """Write the counts of an axis as people read them."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def plain_ticks(axis: Axis, digits: Sequence[int] = (1, 2, 5)) -> None:
    """Have a tick, and a name, for these digits of each power of ten on a logarithmic axis, and no other."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=digits))
    short_ticks(axis)
    axis.set_minor_locator(NullLocator())


def short(count: float) -> str:
    """Write a round count: 500, 2K, 10M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
