"""report: a view over the scores at hand, with the paper's tables beside them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mhrctl.artifacts import write_csv, write_json
from mhrctl.errors import ArtifactError, ParamsError, unknown
from mhrctl.methods import BACKBONE, METHODS
from mhrctl.metrics import CellMetrics, read_metrics
from mhrctl.paper.formulas import FORMULAS, t5_shapes, total
from mhrctl.paper.printed import printed, printed_table
from mhrctl.paper.table import Table, markdown
from mhrctl.params import PLAIN

MISSING = "-"
NOT_RUN = "not run"
T5_XL = {"d_model": 2048, "d_ff": 5120, "layers": 24}
PAPER_SIZES = {"rank": 1, "skills": 8, "tasks": 313}
PAPER_HEADS = 64
TABLE5_BACKBONE = "T5-XL-LM"
TABLE5_COLUMNS = 4
PAPER_SETTING = ("superni", "google/t5-xl-lm-adapt")


@dataclass(frozen=True)
class MethodScores:
    """The cells of one method, head count, variant and number of extra steps, folded over seeds.

    Attributes:
        label: such as `mhr h8 light`.
        method: row of the methods table, or the bare backbone.
        variant: of the grid; `plain` is the method as it is.
        cells: the scores of each seed.
    """

    label: str
    method: str
    variant: str
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
            cell.variant,
            cell.extra_steps,
            "" if cell.seed is None else cell.seed,
            phase,
            scores.rouge_l,
            scores.exact_match,
        )
        for name, cell in cells.items()
        for phase, scores in (("zero_shot", cell.zero_shot), ("adapted", cell.adapted))
        if scores is not None
    ]
    write_csv(
        out / "scores.csv",
        ("cell", "method", "heads", "variant", "extra_steps", "seed", "phase", "rouge_l", "exact_match"),
        rows,
    )
    write_csv(out / "curves.csv", ("cell", "step", "loss"), _curves(metrics / "pretrain"))
    write_json(out / "summary.json", {group.label: _summary(group) for group in fold_seeds(cells)})


def fold_seeds(cells: dict[str, CellMetrics]) -> list[MethodScores]:
    """Group the cells that are adapted by method, heads and variant, in the order of the methods table."""
    return [groups[0] for groups in _by_extra_steps(cells) if 0 in groups]


def _by_extra_steps(cells: dict[str, CellMetrics]) -> list[dict[int, MethodScores]]:
    """For every method, head count and variant, {extra steps: its cells}."""
    found: dict[tuple[int, int, str], dict[int, MethodScores]] = {}
    order = [BACKBONE, *METHODS]
    for cell in cells.values():
        heads = f" h{cell.heads}" if cell.method in METHODS and METHODS[cell.method].multi_head else ""
        label = f"{cell.method}{heads}{'' if cell.variant == PLAIN else f' {cell.variant}'}"
        groups = found.setdefault(
            (order.index(cell.method), cell.heads or 0, "" if cell.variant == PLAIN else cell.variant), {}
        )
        groups.setdefault(cell.extra_steps, MethodScores(label, cell.method, cell.variant, [])).cells.append(cell)
    return [found[key] for key in sorted(found)]


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
    rows = [_table2_row(group, paper.rows.get(group.method) if group.variant == PLAIN else None) for group in groups]
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


def _table5(metrics: Path, _expected: Sequence[str]) -> Table:
    cells = read_metrics(metrics / "evaluate")
    steps = sorted({cell.extra_steps for cell in cells.values()} | {0})
    paper = {row["method"]: row["values"] for row in printed()["table5"]["rows"] if row["backbone"] == TABLE5_BACKBONE}
    found = [groups for groups in _by_extra_steps(cells) if len(groups) > 1 or next(iter(groups.values())).method in paper]
    rows = []
    for groups in found:
        group = next(iter(groups.values()))
        ours = [_over_seeds(groups[step].values("zero_shot", "rouge_l")) if step in groups else MISSING for step in steps]
        theirs = [f"{value:.1f}" for value in paper.get(group.method, []) if group.variant == PLAIN]
        rows.append([group.label, *ours, *theirs, *[MISSING] * (TABLE5_COLUMNS - len(theirs))])
    shown = {next(iter(groups.values())).method for groups in found}
    for method in (method for method in paper if method not in shown):
        theirs = [f"{value:.1f}" for value in paper[method]]
        rows.append([method, *[NOT_RUN] * len(steps), *theirs, *[MISSING] * (TABLE5_COLUMNS - len(theirs))])
    return Table(
        "Table 5: zero-shot, after extra multi-task steps of a single adapter",
        ("method", *(f"{step:,}\nsteps" for step in steps), *(f"paper\n{number}" for number in range(TABLE5_COLUMNS))),
        rows,
        (
            "Ours: zero-shot ROUGE-L; mean and standard deviation over seeds.",
            f"Paper: T0, {TABLE5_BACKBONE}, accuracy (Table 5). Its steps are not known: the columns are numbered, 0 is none.",
        ),
    )


def _table6(metrics: Path, _expected: Sequence[str]) -> Table:
    blocks = {block["layout"]: block["rows"] for block in reversed(printed()["table6"]["blocks"]) if block["suite"] == "T0"}
    rows = []
    for group in fold_seeds(read_metrics(metrics / "evaluate")):
        parameters = group.cells[0].parameters
        layout = group.cells[0].layout
        if layout is None or group.method in ("ia3", "tfew"):  # where the paper lists them
            layout = "full"
        block = blocks.get(layout, []) if group.variant in (PLAIN, layout) else []
        paper: dict[str, Any] = next((row for row in block if row["method"] == group.method), {})
        rows.append(
            [
                group.label,
                f"{parameters.multi_task:,}",
                f"{parameters.adaptation:,}",
                _over_seeds(group.values("adapted", "rouge_l") or group.values("zero_shot", "rouge_l")),
                paper.get("multi_task_params", MISSING),
                paper.get("adaptation_params", MISSING),
                f"{paper['mean']:.1f}" if paper else MISSING,
            ]
        )
    return Table(
        "Table 6: parameters and scores",
        (
            "method",
            "trained\non all",
            "trained\non new",
            "adapted\nROUGE-L",
            "paper\non all",
            "paper\non new",
            "paper\nscore",
        ),
        rows,
        (
            "Ours: exact numbers of trained parameters, routing included; the backbone's score is zero-shot.",
            "Paper: T0, accuracy (Table 6, the first block with a row's layout). It counts the mixed LoRA of poly and mhr.",
        ),
    )


TABLES: dict[int, Callable[[Path, Sequence[str]], Table]] = {1: _table1, 2: _table2, 5: _table5, 6: _table6}


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
