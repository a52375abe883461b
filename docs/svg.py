"""What the drawn pictures have in common: a sheet of paper with words, boxes and arrows on it.

They are as wide as a telephone, so that their words can be read there, and bring their paper, since a page may be dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from mhrctl.config.colours import INK, PAPER

WIDTH, LINE, FROZEN = 400, "#8a9099", "#e9edf2"
"""Of a sheet; the colours of thin lines, and of what is frozen."""
FONT = 'font-family="Verdana, DejaVu Sans, sans-serif" font-size="13"'
CENTRE, BOLD, SMALL = ' text-anchor="middle"', ' font-weight="bold"', ' font-size="11"'
HEADS = {"down": "m-4 -6l4 6l4 -6", "left": "m6 -4l-6 4l6 4", "right": "m-6 -4l6 4l-6 4"}

Drawing = Iterator[str]


def sheet(title: str, height: float, lines: Iterable[str]) -> str:
    """Return a picture: its lines on paper.

    Args:
        title: what a reader hears who does not see it.
        height: of the paper.
        lines: elements of SVG.
    """
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT} fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2:g}" rx="10" fill="{PAPER}" stroke="{LINE}"/>',
        *lines,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def text(x: float, y: float, words: str, extra: str = "") -> str:
    """Words, from where they begin unless they are centred."""
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, extra: str = f' stroke="{LINE}"') -> str:
    """A box with round corners."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{fill}"{extra}/>'


def arrow(path: str, head: str) -> str:
    """A line, and where it ends one of the heads `down`, `left`, `right`."""
    return f'<path d="{path}{HEADS[head]}" fill="none" stroke="{INK}" stroke-width="1.3"/>'
