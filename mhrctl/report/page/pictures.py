"""Figures are shown as one picture a panel, which wrap on a narrow page, over what must be said of them as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mhrctl.report.figures.plan import Plan
from mhrctl.report.figures.style import styled
from mhrctl.report.page.svg import inlined


@dataclass(frozen=True)
class Pictures:
    """These are the pictures of a figure.

    Attributes:
        title: of the figure.
        panels: one picture each, as SVG.
        notes: sentences without which they cannot be read, and what is missing.
    """

    title: str
    panels: Sequence[str]
    notes: Sequence[str]


def pictures(plan: Plan, name: str) -> Pictures:
    """Draw a planned figure for the page.

    Args:
        plan: of the figure.
        name: that no other figure of the page has.
    """
    with styled():
        panels = [inlined(drawing.rendered("svg"), f"{name}-{place}") for place, drawing in enumerate(plan.apart(), start=1)]
    return Pictures(plan.title, panels, [*plan.notes, *plan.all_missing])
