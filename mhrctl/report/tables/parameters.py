"""Tables 1 and 6 say how many parameters a method trains, by formula and beside its score."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE
from mhrctl.report.aggregates import aggregate_of
from mhrctl.report.formulas import FORMULAS, t5_shapes, total
from mhrctl.report.printed import AVERAGES, PrintedRow, PrintedTable, number_of, one_adapter, printed_blocks
from mhrctl.report.results import MISSING, Group, Results
from mhrctl.report.table import Table, Value
from mhrctl.report.tables.beside import (
    NOT_RUN,
    Row,
    beside,
    difference,
    differs,
    exact,
    human,
    misfits,
    notes,
    ours_are,
    papers_are,
    seeds,
    shown,
)

T5_XL = {"d_model": 2048, "d_ff": 5120, "layers": 24}
PAPER_SIZES = {"rank": 1, "skills": 8, "tasks": 313}
PAPER_HEADS = 64


def table1() -> Table:
    """Build the table of the formulas, and of what they make of T5-XL."""
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


def table6(results: Results, expected: Sequence[str]) -> Table:
    """Set our methods beside the paper's of the same layout and heads, on our backbone or else on T5-XL-LM."""
    blocks = _blocks(results)
    comparable = [not differs(results, block) for block in blocks]
    rows = beside(results, results.methods, blocks, strict=True)
    columns = ("trained\non all", "trained\non new", "n", f"adapted\n{results.metric_name}")
    return Table(
        "Table 6: parameters and scores",
        ("method", *columns, "paper\non all", "paper\non new", "paper", "vs.\npaper"),
        [*(_row(row.group, row.papers, comparable) for row in rows if row.group), *_not_run(rows, blocks)],
        (
            ours_are(results, f"numbers of trained parameters, routing included. Scores: {aggregate_of(results.suite).says}."),
            "The backbone's score is zero-shot.",
            papers_are(results, blocks, "Table 6"),
            "The paper counts no routing of training tasks; of poly and mhr the mixed LoRA, of their mu the average.",
            *misfits(results, blocks),
            *notes(results, expected),
        ),
    )


def _blocks(results: Results) -> list[PrintedTable]:
    """The blocks to stand beside ours: of our suite or else of T0, and of our backbone if it is one of the paper's."""
    every = printed_blocks()
    of_suite = [block for block in every if block.has_suite(results.suite)] or [block for block in every if block.suite == "T0"]
    home = next((block for block in of_suite if block.has_backbone(results.backbone)), of_suite[0])
    return [block for block in of_suite if block.backbone == home.backbone]


def _row(group: Group, papers: Sequence[PrintedRow | None], comparable: Sequence[bool]) -> list[str]:
    place, paper = next(((place, paper) for place, paper in enumerate(papers) if paper), (0, None))
    parameters = group.first.parameters
    return [
        group.label,
        exact(parameters.multi_task),
        exact(parameters.adaptation),
        seeds(group),
        shown(group.score("zero_shot" if group.method == BACKBONE else "adapted")),
        *_printed(group, paper),
        shown(paper.score if paper else None),
        difference(group.score("adapted"), paper, comparable=comparable[place]),
    ]


def _printed(group: Group, paper: PrintedRow | None) -> tuple[str, str]:
    """What the paper counts of a method: in its table, or of an average in its text."""
    if paper:
        return _count(paper.multi_task), _count(paper.adaptation)
    average = one_adapter(group.first.layout or "") if group.method in AVERAGES and group.variant == PLAIN else None
    return _count(average or ""), _count(average or "")


def _count(printed: str) -> str:
    """A count as the paper prints it, where it prints one."""
    return Value(printed, {"": number_of(printed)}) if printed else MISSING


def _not_run(rows: Sequence[Row], blocks: Sequence[PrintedTable]) -> list[list[str]]:
    """What only the paper has, block by block."""
    lines = []
    for place, block in enumerate(blocks):
        suffix = "" if block.layout == blocks[0].layout else f" ({block.layout})"
        for row in [row for row in rows if not row.group]:
            if paper := row.papers[place]:
                ours = [MISSING, MISSING, "0", NOT_RUN]
                label = row.label if row.label.endswith(")") else f"{row.label}{suffix}"
                lines.append([label, *ours, _count(paper.multi_task), _count(paper.adaptation), shown(paper.score), MISSING])
    return lines
