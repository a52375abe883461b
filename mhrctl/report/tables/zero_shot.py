"""Table 5 has zero-shot scores after further multi-task training of a single adapter."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.config.grid import PLAIN
from mhrctl.report.printed import MeanStd, Setting, printed
from mhrctl.report.results import MISSING, Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import NOT_RUN, difference, differs, notes, ours_are, papers_are, shown

COLUMNS = 4
"""Numbers of steps in the paper. It does not say how many these are; the first is none."""

ByStep = dict[int, Group]


def table5(results: Results, expected: Sequence[str]) -> Table:
    """Set ours beside the paper's block of T0-11B if that is our backbone, otherwise of T5-XL-LM."""
    settings = [Setting("T0", "accuracy", backbone) for backbone in ("T5-XL-LM", "T0-11B")]
    paper = next((setting for setting in settings if setting.has_backbone(results.backbone)), settings[0])
    scores = {row["method"]: row["values"] for row in printed()["table5"]["rows"] if row["backbone"] == paper.backbone}
    ours = [groups for groups in _by_step(results) if len(groups) > 1 or _any(groups).method in scores]
    steps = sorted({0}.union(*ours))
    rows = [_row(groups, steps, scores, not differs(results, paper)) for groups in ours]
    ran = {_any(groups).method for groups in ours if _any(groups).variant == PLAIN}
    rows += [[name, *[NOT_RUN] * len(steps), "0", *_four(scores[name]), MISSING] for name in scores if name not in ran]
    columns = [*(f"{step:,}\nsteps" for step in steps), "n", *(f"paper\n{number}" for number in range(COLUMNS)), "vs.\n0"]
    return Table(
        "Table 5: zero-shot, after extra multi-task steps of a single adapter",
        ("method", *columns),
        rows,
        (
            ours_are(results, f"zero-shot {results.metric_name}; mean and standard deviation over n seeds."),
            papers_are(results, [paper], "Table 5, zero-shot"),
            "The paper's steps are not known: its columns are numbered. 0 is no extra step, and what is compared.",
            *notes(results, expected),
        ),
    )


def _by_step(results: Results) -> list[ByStep]:
    by_label: dict[str, ByStep] = {}
    for group in results.groups:
        by_label.setdefault(group.label, {})[group.extra_steps] = group
    return list(by_label.values())


def _any(groups: ByStep) -> Group:
    return next(iter(groups.values()))


def _row(groups: ByStep, steps: Sequence[int], paper: dict[str, list[float]], comparable: bool) -> list[str]:
    group = _any(groups)
    means = {step: group.mean("zero_shot") for step, group in groups.items()}
    theirs = paper.get(group.method, []) if group.variant == PLAIN else []
    counts = sorted({len(group.cells) for group in groups.values()})
    return [
        group.label,
        *(shown(means.get(step)) for step in steps),
        "-".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts)),
        *_four(theirs),
        difference(means.get(0), MeanStd(theirs[0], None) if theirs and comparable else None),
    ]


def _four(values: Sequence[float]) -> list[str]:
    return [*(f"{value:.1f}" for value in values), *[MISSING] * (COLUMNS - len(values))]
