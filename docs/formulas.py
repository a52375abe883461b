"""An extension of Python-Markdown that makes MathML of formulas, so that pages need neither a script nor a font for them.

Formulas are written as GitHub reads them: `$a_k$` in a line, and a fence of `math` for one that has lines to itself.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert, convert_to_element
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

FENCE = re.compile(r"^```math\n(?P<formula>.*?)\n```$", flags=re.MULTILINE | re.DOTALL)
INLINE = r"(?<![\\$\w])\$(?=[^\s$])([^$\n]*?[^\s$\\])\$(?![\w$])"
BEFORE_FENCES, AFTER_CODE = 28, 185
"""Priorities: white space is made plain at 30, fences of code are taken at 25, code in a line at 190."""


class _Fences(Preprocessor):
    """Formulas with lines to themselves."""

    def run(self, lines: list[str]) -> list[str]:
        return FENCE.sub(self._stash, "\n".join(lines)).split("\n")

    def _stash(self, fence: re.Match[str]) -> str:
        formula = convert(" ".join(fence["formula"].split()), display="block")
        place = self.md.htmlStash.store(f'<div class="formula">{formula}</div>')
        return f"\n{place}\n"


class _Inline(InlineProcessor):
    """Formulas within a line."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:  # noqa: ARG002, N802
        return convert_to_element(m[1]), m.start(0), m.end(0)


class Formulas(Extension):
    """Takes formulas in dollars and in fences."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register what takes them."""
        md.preprocessors.register(_Fences(md), "formula_fences", BEFORE_FENCES)
        md.inlinePatterns.register(_Inline(INLINE, md), "formulas", AFTER_CODE)


def makeExtension() -> Formulas:  # noqa: N802
    """Python-Markdown asks a module for its extension by this name."""
    return Formulas()
