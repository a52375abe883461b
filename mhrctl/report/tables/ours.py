"""A table of our own results stands by itself: what was measured, without any number of the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.evaluation.scores import PHASES
from mhrctl.report.aggregates import MEDIANS, aggregate_of
from mhrctl.report.bootstrap import LEVEL
from mhrctl.report.differences import BASELINE, Difference, compare, interval_notes
from mhrctl.report.results import MISSING, NO_SCORES, Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import exact, notes, ours_are, seeds, shown


def results_table(results: Results, expected: Sequence[str]) -> Table:
    """Tabulate methods with their scores, their differences to lora and what they train.

    Args:
        results: ours.
        expected: the grid's cells; those without scores are named under the table.
    """
    baseline = next((group for group in results.adapted if group.label == BASELINE), None)
    compared = {
        group.label: compare(group, baseline) for group in results.adapted if baseline is not None and group.label != BASELINE
    }
    title = f"Results: {results.suite} on {results.backbone}" if results.cells else "Results"
    metric = results.metric_name
    columns = (f"zero-shot\n{metric}", f"adapted\n{metric}", f"vs.\n{BASELINE}", f"{LEVEL:.0%}\ninterval", "trained\non new")
    return Table(
        title,
        ("method", "n", *columns),
        [_row(group, compared.get(group.label)) for group in results.methods],
        _notes(results, compared, expected) if results.cells else [NO_SCORES],
    )


def _row(group: Group, difference: Difference | None) -> list[str]:
    scores = [shown(group.score(phase)) for phase in PHASES]
    beside = [difference.mean, difference.ends] if difference else [MISSING, MISSING]
    trained = exact(group.first.parameters.adaptation) if group.values("adapted") else MISSING
    return [group.label, seeds(group), *scores, *beside, trained]


def _notes(results: Results, compared: dict[str, Difference | None], expected: Sequence[str]) -> list[str]:
    lines = [ours_are(results, f"{aggregate_of(results.suite).says}. Trained: numbers for each new task.")]
    if any(compared.values()) and aggregate_of(results.suite) is MEDIANS:
        lines.append(f"vs. {BASELINE}: the mean over tasks and seeds of what a score is above {BASELINE}'s, not of medians.")
    lines += interval_notes(differences) if (differences := [each for each in compared.values() if each]) else []
    if apart := [label for label, difference in compared.items() if difference is None]:
        lines.append(f"No task and seed in common with {BASELINE}: {', '.join(apart)}.")
    if results.adapted and BASELINE not in {group.label for group in results.adapted}:
        lines.append(f"No adapted scores of {BASELINE}, which the others would be compared to.")
    return [*lines, *notes(results, expected)]
