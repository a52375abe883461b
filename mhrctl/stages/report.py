"""The stage `report` sets our scores into the paper's tables, with differences and intervals, and writes DVC's plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mhrctl.artifacts.names import CLAIMS, table_file
from mhrctl.artifacts.writing import write_csv, write_json, write_text
from mhrctl.evaluation.scores import PHASES, SCORE, read_metrics
from mhrctl.report.claims import judge
from mhrctl.report.differences import differences_table
from mhrctl.report.logs import read_logs
from mhrctl.report.results import Group, Results, fold_seeds
from mhrctl.report.table import Table, markdown
from mhrctl.report.tables import TableName, build_table
from mhrctl.report.tables.claims import claims_table
from mhrctl.report.tables.ours import results_table
from mhrctl.report.trials import Choice

POINT = ("cell", "method", "heads", "variant", "extra_steps", "seed", "phase")
"""Columns of the scores table that say which point of the grid a row is of."""


def report(
    metrics: Path,
    out: Path,
    *,
    tables: Sequence[TableName],
    expected_cells: Sequence[str],
    trials: Choice = "by_task",
    margin: float | None = None,
) -> Table:
    """Write results, tables and differences as Markdown; scores, curves and means for DVC's plots and metrics.

    Args:
        metrics: folder of the scores and logs, `data/metrics`.
        out: the output folder, which is there.
        tables: numbers in the paper, or `pool`.
        expected_cells: the grid's cells; those without scores are named.
        trials: how those of a search are chosen.
        margin: the difference of scores that claims take for none; None writes nothing of claims.

    Returns:
        The table of our results.

    Raises:
        ParamsError: if there is no such table.
        ArtifactError: if there are no scores yet, or scores or logs are malformed or do not fit together.
    """
    cells = read_metrics(metrics / "evaluate")
    results = Results(cells, fold_seeds(cells, trials))
    ours = results_table(results, expected_cells)
    write_text(out / "results.md", markdown(ours))
    for number in tables:
        write_text(out / table_file(number), markdown(build_table(number, results, expected_cells)))
    write_text(out / "differences.md", markdown(differences_table(results)))
    logs = read_logs(metrics / "pretrain")
    if margin is not None:
        judged = claims_table(judge(results, logs, margin=margin), margin=margin, metric=results.metric_name)
        write_text(out / CLAIMS, markdown(judged))
    scores = (*results.recorded, SCORE)
    write_csv(out / "scores.csv", (*POINT, *scores, "trial", "multi_task", "adaptation"), _score_rows(results, scores))
    curves = [(log.cell, step, loss) for log in logs for step, loss in zip(log.steps, log.losses, strict=True)]
    write_csv(out / "curves.csv", ("cell", "step", "loss"), curves)
    write_json(out / "summary.json", {group.label: _summary(group, scores) for group in results.methods})
    return ours


def _score_rows(results: Results, scores: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """A row for each cell and phase; a metric that is not recorded of a cell is empty in its rows."""
    for name, cell in results.cells.items():
        seed = "" if cell.seed is None else cell.seed
        point = (name, cell.method, cell.heads or "", cell.variant, cell.extra_steps, seed)
        for phase in PHASES:
            if means := cell.means(phase):
                values = (means.get(score, "") for score in scores)
                yield *point, phase, *values, cell.trial, cell.parameters.multi_task, cell.parameters.adaptation


def _summary(group: Group, scores: Sequence[str]) -> dict[str, float]:
    """The score as the suite's are reported, and means over seeds by metric."""
    means = {
        f"{phase}_{score}": group.score(phase) if score == SCORE else group.mean(phase, score)
        for phase in PHASES
        for score in scores
    }
    return {name: round(mean.mean, 2) for name, mean in means.items() if mean}
