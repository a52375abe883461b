"""Every picture takes its colours and its ink from here; nothing is told by colours that look alike to the colour-blind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
"""Of Okabe and Ito's palette."""
INK = "#1c1c1c"
"""Text, axes, grid, and methods without a colour: nothing else has it, so that a page can put the colour of its own text."""
PAPER = "#ffffff"
"""What is behind a picture, within hollow markers and behind names: likewise, for the colour of a page."""
BEHIND = {"png": PAPER, "svg": "none"}
"""{format of a picture: what is behind it}: an SVG lets the page through, which may be dark; a PNG brings its paper."""
DRAWN: Mapping[str, Any] = {
    "svg.hashsalt": "mhrctl",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
}
"""Settings of matplotlib that all pictures have."""
