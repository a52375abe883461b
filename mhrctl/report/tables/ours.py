"""A table of our own results stands by itself: what was measured, without any number of the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.config.methods import BACKBONE
from mhrctl.errors import counted
from mhrctl.report.aggregates import MEDIANS, aggregate_of
from mhrctl.report.bootstrap import LEVEL
from mhrctl.report.differences import BASELINE, Compared, Difference, apart_notes, baseline_of, compare_all, interval_notes
from mhrctl.report.results import MISSING, NO_SCORES, Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import exact, notes, seeds, shown
from mhrctl.report.verdict import verdict


def results_table(results: Results, expected: Sequence[str]) -> Table:
    """Tabulate methods with their scores, their differences to the baseline and what they train, the most telling first.

    Args:
        results: ours.
        expected: the grid's cells; those without scores are named under the table.
    """
    compared, baseline = compare_all(results), baseline_of(results)
    against = baseline.label if baseline else BASELINE
    metric = results.metric_name
    columns = (f"adapted\n{metric}", f"vs.\n{against}", f"{LEVEL:.0%}\ninterval", "verdict", f"zero-shot\n{metric}")
    return Table(
        f"Results: {suite_line(results)}" if results.cells else "Results",
        ("method", *columns, "trained\nper task", "seeds"),
        [_row(group, compared.get(group.label)) for group in results.methods],
        _notes(results, compared, against, expected) if results.cells else [NO_SCORES],
    )


def suite_line(results: Results) -> str:
    """Say what the results are of: suite, test tasks, metric and backbone."""
    return f"{results.suite}, {counted(len(results.tasks), 'test task')}, {results.metric_name}, on {results.backbone}"


def _row(group: Group, difference: Difference | None) -> list[str]:
    compared = [difference.shown_mean, difference.ends, difference.verdict] if difference else [MISSING] * 3
    nothing = group.method != BACKBONE and not group.values("adapted")
    trained = MISSING if nothing else exact(group.first.parameters.adaptation)
    return [group.label, shown(group.score("adapted")), *compared, shown(group.score("zero_shot")), trained, seeds(group)]


def _notes(results: Results, compared: Compared, against: str, expected: Sequence[str]) -> list[str]:
    lines = [verdict(results, compared), f"Scores: {aggregate_of(results.suite).says}."]
    if any(compared.values()) and aggregate_of(results.suite) is MEDIANS:
        lines.append(f"vs. {against}: the mean over tasks and seeds of what a score is above {against}'s, not of medians.")
    lines += interval_notes(compared)
    return [*lines, *apart_notes(compared, against), *notes(results, expected)]
