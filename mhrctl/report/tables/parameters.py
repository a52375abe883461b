"""Tables 1 and 6 say how many parameters a method trains, by formula and beside its score."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE
from mhrctl.report.formulas import FORMULAS, t5_shapes, total
from mhrctl.report.printed import PrintedBlock, PrintedRow, printed_blocks
from mhrctl.report.results import MISSING, ORDER, Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import (
    NOT_RUN,
    difference,
    differs,
    exact,
    human,
    notes,
    ours_are,
    papers_are,
    seeds,
    shown,
)

T5_XL = {"d_model": 2048, "d_ff": 5120, "layers": 24}
PAPER_SIZES = {"rank": 1, "skills": 8, "tasks": 313}
PAPER_HEADS = 64
SCALING = ("ia3", "tfew")
"""Methods that the paper lists with the full layout, though they scale k, v and wi_1 alone."""


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
    """Set our methods each beside the paper's block of its layout, and list the rest of these blocks."""
    blocks = _blocks(results)
    rows, ran = [], set()
    for group in results.methods:
        layout = _layout(group)
        printed = blocks[layout].rows if layout in blocks and group.variant in (PLAIN, layout) else {}
        theirs = printed.get(group.method)
        comparable = theirs is not None and not differs(results, blocks[layout])
        rows.append(_row(group, theirs, comparable))
        ran |= {(layout, group.method)} if printed else set()
    plain = [_layout(group) for group in results.methods if group.variant == PLAIN and group.first.layout]
    usual = next(iter(plain or blocks))
    used = [layout for layout in blocks if any(layout == of_ran for of_ran, _ in ran)] or list(blocks)[:1]
    for layout in used:
        lacking = [method for method in blocks[layout].rows if (layout, method) not in ran]
        suffix = "" if layout == usual else f" {layout}"
        rows += [_not_run(blocks[layout].rows[method], suffix) for method in sorted(lacking, key=ORDER.index)]
    papers = [blocks[layout] for layout in used]
    columns = ("trained\non all", "trained\non new", "n", f"adapted\n{results.metric_name}")
    return Table(
        "Table 6: parameters and scores",
        ("method", *columns, "paper\non all", "paper\non new", "paper", "vs.\npaper"),
        rows,
        (
            ours_are(results, "numbers of trained parameters, routing included; the backbone's score is zero-shot."),
            papers_are(results, papers, "Table 6"),
            f"The paper's heads: {'; '.join(map(_heads, papers))}.",
            "The paper counts no routing of training tasks, and the mixed LoRA of poly and mhr.",
            *notes(results, expected),
        ),
    )


def _blocks(results: Results) -> dict[str, PrintedBlock]:
    """The blocks to stand beside ours, by layout: of our suite or else of T0, and of our backbone where there is one."""
    every = printed_blocks()
    of_suite = [block for block in every if block.has_suite(results.suite)] or [block for block in every if block.suite == "T0"]
    by_layout: dict[str, PrintedBlock] = {}
    for block in sorted(of_suite, key=lambda block: not block.has_backbone(results.backbone)):
        by_layout.setdefault(block.layout, block)
    return by_layout


def _layout(group: Group) -> str:
    """Where the paper lists a group."""
    return "full" if group.first.layout is None or group.method in SCALING else group.first.layout


def _row(group: Group, paper: PrintedRow | None, comparable: bool) -> list[str]:
    parameters = group.first.parameters
    ours = group.mean("adapted")
    theirs = paper.score if paper else None
    return [
        group.label,
        exact(parameters.multi_task),
        exact(parameters.adaptation),
        seeds(group),
        shown(group.mean("zero_shot") if group.method == BACKBONE else ours),
        *([paper.multi_task, paper.adaptation] if paper else [MISSING] * 2),
        shown(theirs),
        difference(ours, theirs if comparable else None),
    ]


def _not_run(paper: PrintedRow, suffix: str) -> list[str]:
    ours = [MISSING, MISSING, "0", NOT_RUN]
    return [f"{paper.method}{suffix}", *ours, paper.multi_task, paper.adaptation, str(paper.score), MISSING]


def _heads(block: PrintedBlock) -> str:
    rows = [f"{row.method} {row.heads}" for row in block.rows.values() if row.method.startswith("mhr")]
    return f"{', '.join(rows)} ({block.layout})"
