"""The tables have this in common: ours beside the paper's, the difference, and what both need to be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mhrctl.config.cells import method_of
from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE
from mhrctl.errors import listed
from mhrctl.evaluation.text_scores import ENGLISH, TOKENIZERS
from mhrctl.report.printed import MeanStd, PrintedRow, PrintedTable, Setting, can_have_heads
from mhrctl.report.results import MISSING, NO_SCORES, ORDER, Group, Results
from mhrctl.report.table import Value

NOT_RUN = "not run"
SKILLS, GRANULARITY = 8, "layer"
"""Of every printed routing."""
NAMED = 12
"""How many cells a note names."""


@dataclass(frozen=True)
class Row:
    """A row has ours, or the paper's alone, or both.

    Attributes:
        label: of the method, its heads and its variant.
        group: ours; None if it has not been run.
        papers: the paper's, one for each table that stands beside ours; None where it has nothing alike.
    """

    label: str
    group: Group | None
    papers: Sequence[PrintedRow | None]


def beside(results: Results, groups: Sequence[Group], papers: Sequence[PrintedTable], *, strict: bool = False) -> list[Row]:
    """Set rows of the paper beside ours of the same method and number of heads.

    Where a difference is taken to a table, or if `strict`, layout, skills and granularity are the same too. Where none is,
    the paper's stand beside the plain methods, for orientation.

    Args:
        results: ours.
        groups: of these.
        papers: tables of the paper.
        strict: whether everything must be the same in any case.

    Returns:
        All of ours, then what only the paper has.
    """
    exactly = [strict or not differs(results, paper) for paper in papers]
    taken: set[tuple[int, str]] = set()
    rows = []
    for group in sorted(groups, key=lambda group: group.variant != PLAIN):
        theirs: list[PrintedRow | None] = []
        for place, paper in enumerate(papers):
            row = paper.rows.get(group.method)
            is_free = row is not None and ((place, row.method) not in taken or not row.has_known_heads)
            theirs.append(row if row and is_free and _is_alike(row, group, exactly=exactly[place]) else None)
            taken |= {(place, row.method)} if row and theirs[-1] else set()
        rows.append(Row(group.label, group, theirs))
    rows.sort(key=lambda row: groups.index(row.group))
    labels, rest = {group.label for group in groups}, dict[str, list[PrintedRow | None]]()
    for place, paper in enumerate(papers):
        for row in paper.rows.values():
            if (place, row.method) not in taken:
                label = f"{row.label} ({row.layout})" if row.label in labels else row.label
                rest.setdefault(label, [None] * len(papers))[place] = row
    alone = [Row(label, None, theirs) for label, theirs in rest.items()]
    return rows + sorted(alone, key=lambda row: ORDER.index(method_of(row.label)))


def _is_alike(row: PrintedRow, group: Group, *, exactly: bool) -> bool:
    """Whether a row of the paper is of the same method as ours."""
    if row.method != group.method or (can_have_heads(row.method) and row.heads not in (None, group.heads)):
        return False
    if not exactly:
        return group.variant == PLAIN
    cell = group.first
    return row.layout in (None, cell.layout) and cell.skills in (None, SKILLS) and cell.granularity in (None, GRANULARITY)


def seeds(group: Group | None) -> str:
    """Return how many seeds a row is of."""
    return str(len(group.values("adapted") or group.cells)) if group else "0"


def shown(score: MeanStd | None) -> str:
    """Write a score, where there is one."""
    return MISSING if score is None else Value(str(score), {"": score.mean, "deviation": score.deviation})


def difference(ours: MeanStd | None, paper: PrintedRow | None, *, comparable: bool) -> str:
    """Return ours less the paper's, where there are both and they are comparable; not where it leaves the heads unsaid."""
    known = ours and paper and comparable and paper.has_known_heads
    if not (ours and paper and known):
        return MISSING
    less = ours.mean - paper.score.mean
    return Value(f"{less:+z.1f}", {"": less})


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
    tables = [f"{paper}, {paper.shape}" if isinstance(paper, PrintedTable) else str(paper) for paper in papers]
    text = f"Paper: {'; '.join(tables)} ({where})."
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


def unsaid_heads(rows: Sequence[Row]) -> list[str]:
    """Say of which methods beside ours the paper does not say how many heads they have, in a line if there are any."""
    theirs = [paper for row in rows if row.group for paper in row.papers if paper]
    methods = dict.fromkeys(paper.method for paper in theirs if not paper.has_known_heads)
    return [f"The paper does not say how many heads {', '.join(methods)} has there: no difference is taken."] if methods else []


def misfits(results: Results, papers: Sequence[PrintedTable]) -> list[str]:
    """Say what does not fit in tables of the paper, if ours are of their suite or there are none of ours."""
    said = [paper.note for paper in papers if paper.note and (not results.cells or paper.has_suite(results.suite))]
    return list(dict.fromkeys(said))


def _weights(results: Results, paper: Setting) -> str:
    """What is said of a backbone that has the right name alone."""
    if results.frozen is None:
        return f"of scores that do not say which weights {results.backbone} has (`mhrctl evaluate` makes them again)"
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
            return Value(f"{count / size:.1f}{letter}", {"": count})
    return Value(str(count), {"": count})


def exact(count: int) -> str:
    """Write a count to the last digit, below a thousand million."""
    return Value(f"{count:,}", {"": count}) if count < 10**9 else human(count)
