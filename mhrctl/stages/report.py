"""report: the paper's tables with our scores, differences with intervals, and what DVC plots and compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mhrctl.artifacts.writing import write_csv, write_json, write_text
from mhrctl.evaluation.scores import read_metrics
from mhrctl.report.differences import baseline_differences
from mhrctl.report.logs import read_logs
from mhrctl.report.results import Group, Phase, Results, Score, fold_seeds
from mhrctl.report.table import markdown
from mhrctl.report.tables import build_table

PHASES: tuple[Phase, ...] = ("zero_shot", "adapted")
SCORES: tuple[Score, ...] = ("rouge_l", "exact_match", "score")
COLUMNS = ("cell", "method", "heads", "variant", "extra_steps", "seed", "phase", *SCORES, "trial", "multi_task", "adaptation")


def report(metrics: Path, out: Path, *, tables: Sequence[int], expected_cells: Sequence[str]) -> None:
    """Write tables and differences as Markdown; scores, curves and means for DVC's plots and metrics.

    Args:
        metrics: folder of the scores and logs, `data/metrics`.
        out: the output folder, which is there.
        tables: numbers in the paper.
        expected_cells: the grid's cells; those without scores are named.

    Raises:
        ParamsError: if there is no such table.
        ArtifactError: if there are no scores yet, or scores or logs are malformed or do not fit together.
    """
    cells = read_metrics(metrics / "evaluate")
    results = Results(cells, fold_seeds(cells))
    for number in tables:
        write_text(out / f"table{number}.md", markdown(build_table(number, metrics, expected_cells)))
    write_text(out / "differences.md", markdown(baseline_differences(results)))
    write_csv(out / "scores.csv", COLUMNS, _score_rows(results))
    curves = [
        (log.cell, step, loss)
        for log in read_logs(metrics / "pretrain")
        for step, loss in zip(log.steps, log.losses, strict=True)
    ]
    write_csv(out / "curves.csv", ("cell", "step", "loss"), curves)
    write_json(out / "summary.json", {group.label: _summary(group) for group in results.methods})


def _score_rows(results: Results) -> Iterator[tuple[Any, ...]]:
    """A row for each cell and phase."""
    for name, cell in results.cells.items():
        seed = "" if cell.seed is None else cell.seed
        point = (name, cell.method, cell.heads or "", cell.variant, cell.extra_steps, seed)
        for phase in PHASES:
            if scores := getattr(cell, phase):
                values = (getattr(scores, score) for score in SCORES)
                yield *point, phase, *values, cell.trial, cell.parameters.multi_task, cell.parameters.adaptation


def _summary(group: Group) -> dict[str, float]:
    """Means over seeds."""
    means = {f"{phase}_{score}": group.mean(phase, score) for phase in PHASES for score in SCORES}
    return {name: round(own.mean, 2) for name, own in means.items() if own}
