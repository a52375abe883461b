"""The page begins with what it is of, and with what can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhrctl.config.methods import BACKBONE
from mhrctl.config.sources import SOURCES
from mhrctl.errors import counted
from mhrctl.report.differences import Compared
from mhrctl.report.printed import SUITES
from mhrctl.report.results import Results
from mhrctl.report.verdict import best_line, verdict

BUILT_IN = ("compositional", *SUITES.values())
"""Suites that have a title; tasks of one's own have the name of the project's folder."""


@dataclass(frozen=True)
class Headline:
    """A headline is the beginning of the page.

    Attributes:
        title: of the project.
        verdict: what can be said of the results.
        facts: sentences on what these are.
    """

    title: str
    verdict: str
    facts: Sequence[str]


def headline(results: Results, compared: Compared, cards: Mapping[str, Any], project: Path) -> Headline:
    """Say what the results are of.

    Args:
        results: ours.
        compared: the methods, to the baseline.
        cards: {output: its card}, of which adaptations say how many examples they had.
        project: the project's folder.
    """
    facts = [line for line in (best_line(results, compared), _counts(results, cards)) if line]
    return Headline(_title(results, project), verdict(results, compared), [*facts, f"Made by mhrctl {version('mhrctl')}."])


def _title(results: Results, project: Path) -> str:
    suite = results.suite
    known = SOURCES[suite].studies[0].title if suite in BUILT_IN else project.resolve().name
    return f"{known} on {results.backbone}" if results.cells else known


def _counts(results: Results, cards: Mapping[str, Any]) -> str | None:
    """How many tasks, shots, seeds and methods there are; None without scores."""
    if not results.cells:
        return None
    seeds = sorted({cell.seed for cell in results.cells.values() if cell.seed is not None})
    methods = [group for group in results.groups if group.method != BACKBONE]
    parts = [
        counted(len(results.tasks), "test task"),
        *_shots(cards),
        f"{counted(len(methods), 'method')}{' and variants' if any(group.variant != 'plain' for group in methods) else ''}",
        f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}" if seeds else "no seed",
    ]
    return f"{', '.join(parts)}."


def _shots(cards: Mapping[str, Any]) -> list[str]:
    """How many examples a task is adapted with, in words; nothing where no adaptation is at hand."""
    counts = set[int]()
    for name, card in cards.items():
        if name.startswith("adapt/"):
            counts |= {shots[0] for shots in card.get("facts", {}).get("shots", {}).values()}
    if not counts:
        return []
    least, most = min(counts), max(counts)
    number = counted(most, "example") if least == most else f"{least:,} to {counted(most, 'example')}"
    return [f"{number} of each to adapt with"]
