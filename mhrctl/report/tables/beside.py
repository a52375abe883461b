"""The tables have this in common: ours beside the paper's, the difference, and what both need to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE
from mhrctl.errors import listed
from mhrctl.evaluation.rouge import ENGLISH, TOKENIZERS
from mhrctl.report.printed import MeanStd, Setting
from mhrctl.report.results import MISSING, NO_SCORES, ORDER, Group, Results

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
    if not results.cells:
        return text
    reasons = {str(other): differs(results, other) for other in compared or papers}
    comparable = [name for name, reason in reasons.items() if not reason]
    if len(comparable) == len(reasons):
        return text
    if comparable:
        return f"{text} A difference is taken to {'; '.join(comparable)} alone."
    nearest: list[str] = min(reasons.values(), key=len)
    return f"{text} No difference is taken: ours are {', '.join(nearest)}."


def differs(results: Results, paper: Setting) -> list[str]:
    """Return in what ours are not as a setting of the paper, in words; a difference to it would mean nothing unless in nothing.

    Args:
        results: ours.
        paper: the setting.
    """
    checks = (
        (paper.has_suite(results.suite), f"of suite {results.suite}, not {paper.suite}"),
        (
            not paper.has_suite(results.suite) or results.tasks in paper.test_tasks(),
            f"on {len(results.tasks)} test tasks that are not the paper's {len(paper.test_tasks()[0])}",
        ),
        (paper.has_metric(results.metric), f"scored by {results.metric_name}, not {paper.metric}"),
        (paper.has_backbone(results.backbone), f"of backbone {results.backbone}, not {paper.backbone}"),
        (not paper.has_backbone(results.backbone) or paper.has_weights(results.frozen), _weights(results, paper)),
    )
    return [reason for holds, reason in checks if not holds]


def _weights(results: Results, paper: Setting) -> str:
    """What is said of a backbone that has the right name alone."""
    if results.frozen is None:
        return f"of scores that do not say which weights {results.backbone} has (`mhrctl evaluate` makes them anew)"
    frozen = results.frozen
    return f"of another {results.backbone} than {paper.backbone} ({frozen.source}, {frozen.parameters:,} weights)"


def notes(results: Results, expected: Sequence[str]) -> list[str]:
    """List trials that were chosen, cells that the grid does not know, and cells without scores."""
    if not results.cells:
        return []
    lines = [group.note for group in results.groups if group.note]
    lines += [*_undecided(results), *_tokenizers(results)]
    if others := [name for name in results.cells if name not in expected and name != BACKBONE]:
        lines.append(f"Not in the grid, but counted: {named(others)}.")
    if missing := results.lacking(expected):
        lines.append(f"No scores yet: {named(missing)}.")
    return lines


def _undecided(results: Results) -> list[str]:
    """Say where nothing in validation chose the step that was kept."""
    cells = []
    for name, cell in results.cells.items():
        tied = [of for of in cell.by_task.values() if of.undecided]
        zero = sum(of.validation == 0 for of in tied)
        if tied:
            cells.append(f"{name} in {len(tied)} of {cell.tasks} tasks{f' ({zero} with 0 at every step)' if zero else ''}")
    return [f"No validation score ever differed, so that the first step was kept: {named(cells)}."] if cells else []


def _tokenizers(results: Results) -> list[str]:
    """Say which tasks have a ROUGE-L of other tokens than the English ones."""
    by_tokenizer: dict[str, list[str]] = {}
    for cell in results.cells.values():
        for task, of in cell.by_task.items():
            names = by_tokenizer.setdefault(of.rouge_tokenizer, [])
            if of.metric == "rouge_l" and of.rouge_tokenizer != ENGLISH and task not in names:
                names.append(task)
    others = f"; of other tasks {TOKENIZERS[ENGLISH].title}" if ENGLISH in by_tokenizer else ""
    return [
        f"ROUGE-L compares {TOKENIZERS[name].title} in {named(tasks)}{others}." for name, tasks in by_tokenizer.items() if tasks
    ]


def named(names: Sequence[str]) -> str:
    """List names, or the first of many."""
    return listed(names, NAMED)


def human(count: int) -> str:
    """Write a count as people read it: 2.2M, 17.7K, 912."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if round(count * 1000 / size, 1) >= 1000:  # so that 999,950 is 1.0M and not 1000.0K
            return f"{count / size:.1f}{letter}"
    return str(count)


def exact(count: int) -> str:
    """Write a count to the last digit, below a thousand million."""
    return f"{count:,}" if count < 10**9 else human(count)
