"""Table 5 has zero-shot scores after further multi-task training of a single adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhrctl.report.aggregates import aggregate_of
from mhrctl.report.printed import zero_shot_tables
from mhrctl.report.results import MISSING, Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import (
    NOT_RUN,
    Row,
    beside,
    difference,
    differs,
    notes,
    ours_are,
    papers_are,
    shown,
    unsaid_heads,
)

COLUMNS = 4
"""Numbers of steps in the paper. It does not say how many these are; the first is none."""

ByStep = dict[int, Group]
Scores = Mapping[str, Sequence[float]]
"""{method: the paper's scores by number of steps}."""


def table5(results: Results, expected: Sequence[str]) -> Table:
    """Set ours beside the paper's block of T0-11B if that is our backbone, otherwise of T5-XL-LM."""
    blocks = zero_shot_tables()
    paper, scores = next((block for block in blocks if block[0].has_backbone(results.backbone)), blocks[0])
    by_step = {label: groups for label, groups in _by_step(results).items() if len(groups) > 1 or _any(groups).method in scores}
    steps = sorted({0}.union(*by_step.values()))
    rows = beside(results, [_any(groups) for groups in by_step.values()], [paper])
    comparable = not differs(results, paper)
    columns = [*(f"{step:,}\nsteps" for step in steps), "n", *(f"paper\n{number}" for number in range(COLUMNS)), "vs.\n0"]
    return Table(
        "Table 5: zero-shot, after extra multi-task steps of a single adapter",
        ("method", *columns),
        [_row(row, by_step.get(row.label, {}), steps, scores, comparable=comparable) for row in rows],
        (
            ours_are(results, f"zero-shot {results.metric_name}: {aggregate_of(results.suite).says}."),
            papers_are(results, [paper], "Table 5, zero-shot"),
            "The paper's steps are not known: its columns are numbered. 0 is no extra step, and what is compared.",
            *unsaid_heads(rows),
            *notes(results, expected),
        ),
    )


def _by_step(results: Results) -> dict[str, ByStep]:
    by_label: dict[str, ByStep] = {}
    for group in results.groups:
        by_label.setdefault(group.label, {})[group.extra_steps] = group
    return by_label


def _any(groups: ByStep) -> Group:
    return next(iter(groups.values()))


def _row(row: Row, groups: ByStep, steps: Sequence[int], scores: Scores, *, comparable: bool) -> list[str]:
    (paper,) = row.papers
    theirs = scores[paper.method] if paper else []
    four = [*(f"{value:.1f}" for value in theirs), *[MISSING] * (COLUMNS - len(theirs))]
    if not groups:
        return [row.label, *[NOT_RUN] * len(steps), "0", *four, MISSING]
    ours = {step: group.score("zero_shot") for step, group in groups.items()}
    counts = sorted({len(group.cells) for group in groups.values()})
    return [
        row.label,
        *(shown(ours.get(step)) for step in steps),
        "-".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts)),
        *four,
        difference(ours.get(0), paper, comparable=comparable),
    ]
