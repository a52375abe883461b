"""Tables 2, 3 and 4 have scores after few-shot adaptation."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.evaluation.metrics import is_over_choices
from mhrctl.report.aggregates import MEANS, MEDIANS, Aggregate, aggregate_of
from mhrctl.report.printed import MeanStd, PrintedRow, PrintedTable, printed, printed_table
from mhrctl.report.results import Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import (
    NOT_RUN,
    Row,
    beside,
    difference,
    differs,
    misfits,
    notes,
    ours_are,
    papers_are,
    seeds,
    shown,
    unsaid_heads,
)


def table2(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of Super-NaturalInstructions."""
    return _few_shot("Table 2: few-shot adaptation", printed_table("table2"), "Table 2", results, results.methods, expected)


def table3(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of T0 on the 11B backbone; ours stand in it only if they are of that backbone."""
    paper = printed_table("table3")
    groups = results.methods if paper.has_backbone(results.backbone) else []
    return _few_shot("Table 3: few-shot adaptation at 11B", paper, "Table 3", results, groups, expected)


def table4(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of averaged skills, in two blocks: T0 and Super-NaturalInstructions; with random_mu of section 5.2."""
    t0, superni = printed_table("table4_t0"), printed_table("table4_superni")
    random_mu = PrintedRow("random_mu", None, t0.layout, MeanStd(printed()["text"]["random_mu"]["mean"], None))
    blocks = [PrintedTable(t0.suite, t0.metric, t0.backbone, t0.layout, {**t0.rows, "random_mu": random_mu}), superni]
    place = min(range(len(blocks)), key=lambda place: len(differs(results, blocks[place])))
    against = blocks[place]
    same = not differs(results, against)
    listed = {method for block in blocks for method in block.rows}
    rows = beside(results, [group for group in results.methods if group.method in listed], blocks)
    if against.has_suite(results.suite):  # what the other suite alone has is not missing here
        rows = [row for row in rows if row.group or row.papers[place]]
    columns = (*_columns(results), "paper\nT0", "paper\nSuperNI", "vs.\npaper")
    return Table(
        "Table 4: adaptation of the average (mu)",
        ("method", "n", *columns),
        [
            [
                row.label,
                seeds(row.group),
                *_scores(results, row.group),
                *(shown(theirs.score if theirs else None) for theirs in row.papers),
                difference(row.group.score("adapted") if row.group else None, row.papers[place], comparable=same),
            ]
            for row in rows
        ],
        (
            ours_are(results, _folded(results)),
            papers_are(results, blocks, "Table 4; random_mu is of section 5.2", compared=[against]),
            f"vs. paper: {against.suite}. mu: the skills are averaged after pre-training, and the average, one LoRA, is tuned.",
            "The paper does not say the heads of mhr_mu: taken to be those of the mhr whose skills it averages.",
            *notes(results, expected),
        ),
    )


def _few_shot(
    title: str, paper: PrintedTable, where: str, results: Results, groups: Sequence[Group], expected: Sequence[str]
) -> Table:
    """Some of our methods, and those of a table in the paper. Exact match is left out where answers are chosen."""
    exact = not is_over_choices(results.metric) and not paper.has_metric("accuracy")
    comparable = not differs(results, paper)
    rows = beside(results, groups, [paper])
    columns = [f"zero-shot\n{results.metric_name}", *_columns(results), *(["adapted\nEM"] if exact else [])]
    apart = [f"Ours are not of {paper.backbone}: they stand in the other tables."] if results.cells and not groups else []
    return Table(
        title,
        ("method", "n", *columns, "paper", "vs.\npaper"),
        [_row(results, row, exact=exact, comparable=comparable) for row in rows],
        (
            ours_are(results, _folded(results)),
            papers_are(results, [paper], where),
            *apart,
            *unsaid_heads(rows),
            *misfits(results, [paper]),
            *notes(results, expected),
        ),
    )


def _row(results: Results, row: Row, *, exact: bool, comparable: bool) -> list[str]:
    group, (theirs,) = row.group, row.papers
    zero_shot = shown(group.score("zero_shot")) if group else NOT_RUN
    matches = [shown(group.mean("adapted", "exact_match")) if group else NOT_RUN] if exact else []
    return [
        row.label,
        seeds(group),
        zero_shot,
        *_scores(results, group),
        *matches,
        shown(theirs.score if theirs else None),
        difference(group.score("adapted") if group else None, theirs, comparable=comparable),
    ]


def _aggregates(results: Results) -> tuple[Aggregate, ...]:
    """The suite's own; of T0, where these are medians, means beside them."""
    return (MEDIANS, MEANS) if aggregate_of(results.suite) is MEDIANS else (MEANS,)


def _columns(results: Results) -> list[str]:
    return [f"adapted\n{results.metric_name}", *(other.title for other in _aggregates(results)[1:])]


def _scores(results: Results, group: Group | None) -> list[str]:
    return [shown(group.folded("adapted", each)) if group else NOT_RUN for each in _aggregates(results)]


def _folded(results: Results) -> str:
    """What the columns of ours are, in words."""
    chosen, *others = _aggregates(results)
    beside = "".join(f" {other.title.replace(chr(10), ' ').capitalize()}: {other.says}." for other in others)
    return f"{chosen.says}.{beside}"
