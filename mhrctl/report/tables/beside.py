"""The tables have this in common: ours beside the paper's, the difference, and what both need to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import PLAIN
from mhrctl.report.printed import MeanStd, Setting
from mhrctl.report.results import NO_SCORES, ORDER, Group, Results

MISSING = "-"
NOT_RUN = "not run"
NAMED = 12
"""How many cells a note names."""


def beside(groups: Sequence[Group], paper: Mapping[str, MeanStd]) -> list[tuple[str, Group | None, MeanStd | None]]:
    """Pair ours with the paper's scores of a method.

    Returns:
        (method, ours, paper's): all of ours, then what only the paper has. Variants have nothing of the paper's.
    """
    ran = [(group.method, group, paper.get(group.method) if group.variant == PLAIN else None) for group in groups]
    plain = {group.method for group in groups if group.variant == PLAIN}
    rest = sorted((method for method in paper if method not in plain), key=ORDER.index)
    return [*ran, *((method, None, paper[method]) for method in rest)]


def seeds(group: Group | None) -> str:
    """Return how many seeds a row is of."""
    return str(len(group.values("adapted") or group.cells)) if group else "0"


def shown(score: MeanStd | None) -> str:
    """Write a score, where there is one."""
    return MISSING if score is None else str(score)


def difference(ours: MeanStd | None, paper: MeanStd | None) -> str:
    """Return ours less the paper's, where there are both."""
    return f"{ours.mean - paper.mean:+z.1f}" if ours and paper else MISSING


def ours_are(results: Results, what: str) -> str:
    """Return whose scores these are, and what is shown of them."""
    return f"Ours: suite {results.suite}, backbone {results.backbone}; {what}" if results.cells else NO_SCORES


def papers_are(results: Results, papers: Sequence[Setting], where: str, *, compared: Sequence[Setting] = ()) -> str:
    """Return which numbers of the paper these are, and what a difference to them means.

    Args:
        results: ours.
        papers: settings whose numbers are shown.
        where: in the paper.
        compared: those that differences are taken to; all if none are named.
    """
    text = f"Paper: {'; '.join(map(str, papers))} ({where})."
    others = compared or papers
    if not results.cells:
        return text
    if not any(other.has_metric(results.metric) for other in others):
        return f"{text} Ours are {results.metric_name}: there is no difference to take."
    if not all(other.has_suite(results.suite) and other.has_backbone(results.backbone) for other in others):
        return f"{text} Where ours differ in suite or backbone, the difference is no reproduction."
    return text


def notes(results: Results, expected: Sequence[str]) -> list[str]:
    """List trials that were chosen, cells that the grid does not know, and cells without scores."""
    if not results.cells:
        return []
    lines = [group.note for group in results.groups if group.note]
    if others := [name for name in results.cells if name not in expected and name != BACKBONE]:
        lines.append(f"Not in the grid, but counted: {named(others)}.")
    if missing := results.lacking(expected):
        lines.append(f"No scores yet: {named(missing)}.")
    return lines


def named(names: Sequence[str]) -> str:
    """List names, or the first of many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def human(count: int) -> str:
    """Write a count as people read it: 2.2M, 17.7K, 912."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if round(count * 1000 / size, 1) >= 1000:  # so that 999,950 is 1.0M and not 1000.0K
            return f"{count / size:.1f}{letter}"
    return str(count)


def exact(count: int) -> str:
    """Write a count to the last digit, below a thousand million."""
    return f"{count:,}" if count < 10**9 else human(count)
