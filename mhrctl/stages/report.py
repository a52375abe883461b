"""report: a view over the scores at hand, with the paper's tables beside them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mhrctl.artifacts import write_csv, write_json
from mhrctl.errors import ArtifactError, ParamsError, unknown
from mhrctl.methods import BACKBONE, METHODS
from mhrctl.metrics import CellMetrics, read_metrics
from mhrctl.paper.formulas import FORMULAS, t5_shapes, total
from mhrctl.paper.printed import printed_table
from mhrctl.paper.table import Table, markdown

MISSING = "-"
NOT_RUN = "not run"
T5_XL = {"d_model": 2048, "d_ff": 5120, "layers": 24}
PAPER_SIZES = {"rank": 1, "skills": 8, "tasks": 313}
PAPER_HEADS = 64
PAPER_SETTING = ("superni", "google/t5-xl-lm-adapt")


@dataclass(frozen=True)
class MethodScores:
    """The cells of one method and head count, folded over seeds.

    Attributes:
        label: such as `mhr h8`.
        method: row of the methods table, or the bare backbone.
        cells: the scores of each seed.
    """

    label: str
    method: str
    cells: list[CellMetrics]

    def values(self, phase: str, score: str) -> list[float]:
        """A score of every seed that has the phase."""
        phases = [getattr(cell, phase) for cell in self.cells]
        return [getattr(scores, score) for scores in phases if scores is not None]


def build_table(number: int, metrics: Path, expected_cells: Sequence[str]) -> Table:
    """Build one of the paper's tables.

    Args:
        number: of the table in the paper.
        metrics: folder of the scores, `data/metrics`.
        expected_cells: the grid's cells; those without scores are named under the table.

    Raises:
        ParamsError: if there is no such table here.
        ArtifactError: if there are no scores yet, or they do not fit together.
    """
    if number not in TABLES:
        raise ParamsError(unknown("table", str(number), map(str, TABLES)))
    return TABLES[number](metrics, expected_cells)


def report(metrics: Path, out: Path, *, tables: Sequence[int], expected_cells: Sequence[str]) -> None:
    """Write tables as Markdown, and scores, curves and means for DVC's plots and metrics, into the folder `out`."""
    cells = read_metrics(metrics / "evaluate")
    for number in tables:
        (out / f"table{number}.md").write_text(markdown(build_table(number, metrics, expected_cells)))
    rows = [
        (
            name,
            cell.method,
            cell.heads or "",
            "" if cell.seed is None else cell.seed,
            phase,
            scores.rouge_l,
            scores.exact_match,
        )
        for name, cell in cells.items()
        for phase, scores in (("zero_shot", cell.zero_shot), ("adapted", cell.adapted))
        if scores is not None
    ]
    write_csv(out / "scores.csv", ("cell", "method", "heads", "seed", "phase", "rouge_l", "exact_match"), rows)
    write_csv(out / "curves.csv", ("cell", "step", "loss"), _curves(metrics / "pretrain"))
    write_json(out / "summary.json", {group.label: _summary(group) for group in fold_seeds(cells)})


def fold_seeds(cells: dict[str, CellMetrics]) -> list[MethodScores]:
    """Group cells by method and heads, in the order of the methods table."""
    groups: dict[tuple[int, int, str], MethodScores] = {}
    order = [BACKBONE, *METHODS]
    for cell in cells.values():
        label = f"{cell.method} h{cell.heads}" if cell.method in METHODS and METHODS[cell.method].multi_head else cell.method
        key = (order.index(cell.method), cell.heads or 0, cell.method)
        groups.setdefault(key, MethodScores(label, cell.method, [])).cells.append(cell)
    return [groups[key] for key in sorted(groups)]


def _table1(_metrics: Path, _expected: Sequence[str]) -> Table:
    shapes = list(t5_shapes(**T5_XL))
    rows = []
    for method, formulas in FORMULAS.items():
        heads = PAPER_HEADS if method.startswith("mhr") else 1
        counts = [human(total(formula, shapes, heads=heads, **PAPER_SIZES)) for formula in formulas]
        rows.append([method, *(formula.text for formula in formulas), *counts])
    return Table(
        "Table 1: parameters of a method",
        ("method", "pre-\ntraining", "fine-\ntuning", "inference", "XL pre-\ntraining", "XL fine-\ntuning", "XL in-\nference"),
        rows,
        (
            "Formulas are for one adapted layer: d = d_in + d_out, w = d_in d_out, r rank, K skills, T tasks, H heads.",
            "XL: T5-XL's 432 layers q k v o wi_0 wi_1 wo, r = 1, K = 8, T = 313, H = 64 for mhr.",
            "full_ft counts these layers alone: the whole model has 2.8B. poly_mu is a row of ours.",
            "The paper's Table 6 prints 17M and 2.2M for poly and mhr: the skills without their routing, and the mixed LoRA.",
        ),
    )


def _table2(metrics: Path, expected: Sequence[str]) -> Table:
    cells = read_metrics(metrics / "evaluate")
    paper = printed_table("table2")
    groups = fold_seeds(cells)
    rows = [_table2_row(group, paper.rows.get(group.method)) for group in groups]
    not_run = [method for method in paper.rows if method not in {group.method for group in groups}]
    rows += [[method, "0", *[NOT_RUN] * 5, _spread(*paper.rows[method]), MISSING] for method in not_run]
    suite, backbone = next((cell.suite, cell.backbone) for cell in cells.values())
    notes = [
        f"Ours: suite {suite}, backbone {backbone}; mean and standard deviation over n seeds.",
        f"Paper: {paper.suite}, {paper.backbone}, {paper.metric} (Table 2)."
        + (
            ""
            if (suite, backbone) == PAPER_SETTING
            else " Ours differs in suite or backbone: the difference is no reproduction."
        ),
        "Trained: parameters in pre-training on all tasks, and in adaptation to a new one.",
    ]
    if others := [name for name in cells if name not in expected and name != BACKBONE]:
        notes.append(f"Not in the grid, but counted: {', '.join(others)}.")
    if missing := [name for name in expected if name not in cells]:
        notes.append(f"No scores yet: {', '.join(missing)}.")
    columns = (
        "method",
        "n",
        "zero-shot\nROUGE-L",
        "adapted\nROUGE-L",
        "adapted\nEM",
        "trained\non all",
        "trained\non new",
        "paper",
        "vs.\npaper",
    )
    return Table("Table 2: few-shot adaptation", columns, rows, notes)


def _table2_row(group: MethodScores, paper: tuple[float, float] | None) -> list[str]:
    adapted = group.values("adapted", "rouge_l")
    parameters = group.cells[0].parameters
    return [
        group.label,
        str(len(adapted or group.cells)),
        _over_seeds(group.values("zero_shot", "rouge_l")),
        _over_seeds(adapted),
        _over_seeds(group.values("adapted", "exact_match")),
        human(parameters.multi_task) if parameters.multi_task else MISSING,
        human(parameters.adaptation) if parameters.adaptation else MISSING,
        _spread(*paper) if paper else MISSING,
        f"{fmean(adapted) - paper[0]:+z.1f}" if paper and adapted else MISSING,
    ]


TABLES: dict[int, Callable[[Path, Sequence[str]], Table]] = {1: _table1, 2: _table2}


def human(count: int) -> str:
    """A count as people read it: 2.2M, 17.7K, 912."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if round(count * 1000 / size, 1) >= 1000:  # so that 999,950 is 1.0M and not 1000.0K
            return f"{count / size:.1f}{letter}"
    return str(count)


def _over_seeds(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    return _spread(fmean(values), stdev(values)) if len(values) > 1 else f"{values[0]:.1f}"


def _spread(mean: float, deviation: float) -> str:
    return f"{mean:.1f}±{deviation:.1f}"


def _summary(group: MethodScores) -> dict[str, float]:
    means = {
        f"{phase}_{score}": group.values(phase, score)
        for phase in ("zero_shot", "adapted")
        for score in ("rouge_l", "exact_match")
    }
    return {name: round(fmean(values), 2) for name, values in means.items() if values}


def _curves(folder: Path) -> list[tuple[str, str, str]]:
    """Cell, step and loss of all pre-training logs."""
    rows = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(newline="") as stream:
            log = csv.DictReader(stream)
            own = [(file.stem, row.get("step") or "", row.get("loss") or "") for row in log]
            columns = log.fieldnames or ()
        if not {"step", "loss"} <= set(columns) or any("" in row for row in own):
            raise ArtifactError(f"{file}: no step and loss in each row; run `mhrctl pretrain` for this cell again")
        rows += own
    return rows
