"""Every picture takes its colours from here; nothing is told by colours that look alike to the colour-blind."""

from __future__ import annotations

BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
"""Of Okabe and Ito's palette."""
INK = "#1c1c1c"
"""Text, axes, grid, and methods without a colour: nothing else has it, so that a page can put the colour of its own text."""
PAPER = "#ffffff"
"""What is behind a picture, within hollow markers and behind names: likewise, for the colour of a page."""
