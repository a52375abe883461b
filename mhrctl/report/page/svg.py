"""A figure becomes a part of the page: its text, axes and grid take the page's colours, in the light and in the dark."""

from __future__ import annotations

import re

from mhrctl.config.colours import PAPER
from mhrctl.errors import printable

DARK, LIGHT = 0x90, 0xD8
"""Greys up to the one are ink, from the other on lines of a grid."""
_BEFORE = re.compile(r"\A.*?(?=<svg\b)", re.DOTALL)
_NOT_SHOWN = re.compile(r"<metadata>.*?</metadata>\s*|<style\b.*?</style>\s*", re.DOTALL)
_SIZE = re.compile(r' (?:height|width)="[^"]*"')
_WIDTH = re.compile(r'viewBox="0 0 ([\d.]+)')
_FONT = re.compile(r'font-family: [^;"]*(?:; )?')
POINT = 4 / 3
"""Pixels."""
_TAG = re.compile(r"<[^>]*>")
_NAME = re.compile(r'(\bid="|\bxlink:href="#|\burl\(#)')
_BACKGROUND = f'style="fill: {PAPER}"'
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")


def inlined(svg: bytes, prefix: str) -> str:
    """Make matplotlib's SVG a part of a page.

    Args:
        svg: as it is written to a file, text as text.
        prefix: of all names in it, which would else be those of another figure too.
    """

    def tag(match: re.Match[str]) -> str:
        text = _NAME.sub(rf"\g<1>{prefix}-", match[0])
        if text.startswith("<svg"):
            return _SIZE.sub("", text).replace("<svg", f'<svg style="--natural: {_natural(text):.0f}px"', 1)
        if text.startswith("<image"):  # whose data is no place to look for colours
            return text
        return _COLOUR.sub(_of_page, _FONT.sub("", text).replace(_BACKGROUND, 'style="fill: none"'))

    text = _NOT_SHOWN.sub("", _BEFORE.sub("", svg.decode("utf-8")))
    return printable(_TAG.sub(tag, text).strip(), keep="\n")  # names may be any text, and stand in no tag


def _natural(tag: str) -> float:
    """The width of a figure in pixels."""
    width = _WIDTH.search(tag)
    return float(width[1]) * POINT if width else 0.0


def _of_page(match: re.Match[str]) -> str:
    """A grey becomes a colour of the page; any other colour stays."""
    colour = match[0].lower()
    if colour == PAPER:
        return "var(--page)"
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    if not red == green == blue:
        return colour
    return "currentColor" if red <= DARK else "var(--line)" if red >= LIGHT else "var(--soft)"
