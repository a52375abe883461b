"""A page is a figure whose axes have their places, so that it need not be drawn in order to be measured."""

from __future__ import annotations

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure


class Page(Figure):
    """A page is written with all that is on it: for that, matplotlib draws a figure once in vain, in case axes move.

    Attributes:
        is_laid_out: whether what is drawn next is to be seen.
    """

    is_laid_out = True

    def draw(self, renderer: RendererBase) -> None:
        """Draw all, unless it is in vain."""
        if self.is_laid_out:
            super().draw(renderer)
        self.is_laid_out = True
