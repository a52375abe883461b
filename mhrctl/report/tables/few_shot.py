"""Tables 2, 3 and 4 have scores after few-shot adaptation."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.evaluation.metrics import is_over_choices
from mhrctl.report.printed import MeanStd, PrintedTable, printed, printed_table
from mhrctl.report.results import Group, Results
from mhrctl.report.table import Table
from mhrctl.report.tables.beside import NOT_RUN, beside, difference, differs, notes, ours_are, papers_are, seeds, shown

FOLDED = (
    "mean and standard deviation over n seeds of the mean over tasks. Median of seeds: of each task; mean and standard"
    " deviation over tasks, as the authors did for T0."
)


def table2(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of Super-NaturalInstructions."""
    return _few_shot("Table 2: few-shot adaptation", printed_table("table2"), "Table 2", results, expected)


def table3(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of T0 on the 11B backbone."""
    return _few_shot("Table 3: few-shot adaptation at 11B", printed_table("table3"), "Table 3", results, expected)


def table4(results: Results, expected: Sequence[str]) -> Table:
    """Build the table of averaged skills, in two blocks: T0 and Super-NaturalInstructions; with random_mu of section 5.2."""
    blocks = [printed_table("table4_t0"), printed_table("table4_superni")]
    random_mu = {"random_mu": MeanStd(printed()["text"]["random_mu"]["mean"], None)}
    scores = {"T0": blocks[0].rows | random_mu, "SuperNI": blocks[1].rows}
    against = min(blocks, key=lambda block: len(differs(results, block)))
    same = not differs(results, against)
    listed = scores["SuperNI"] | scores["T0"]
    rows = []
    for method, group, known in beside([group for group in results.methods if group.method in listed], listed):
        theirs = {suite: scores[suite].get(method) if known else None for suite in scores}
        ours = [group.mean("adapted"), group.median("adapted")] if group else [None, None]
        comparable = theirs[against.suite] if same else None
        rows.append(
            [
                group.label if group else method,
                seeds(group),
                *(map(shown, ours) if group else [NOT_RUN] * 2),
                *map(shown, theirs.values()),
                difference(ours[0], comparable),
            ]
        )
    columns = (f"adapted\n{results.metric_name}", "median\nof seeds", "paper\nT0", "paper\nSuperNI", "vs.\npaper")
    return Table(
        "Table 4: adaptation of the average (mu)",
        ("method", "n", *columns),
        rows,
        (
            ours_are(results, FOLDED),
            papers_are(results, blocks, "Table 4; random_mu is of section 5.2", compared=[against]),
            f"vs. paper: {against.suite}. mu: the skills are averaged after pre-training, and the average, one LoRA, is tuned.",
            *notes(results, expected),
        ),
    )


def _few_shot(title: str, paper: PrintedTable, where: str, results: Results, expected: Sequence[str]) -> Table:
    """All our methods, and those of a table in the paper. Exact match is left out where answers are chosen."""
    exact = not is_over_choices(results.metric) and not paper.has_metric("accuracy")
    comparable = not differs(results, paper)
    rows = [
        [
            group.label if group else method,
            seeds(group),
            *_scores(group, exact),
            shown(theirs),
            difference(group.mean("adapted") if group else None, theirs if comparable else None),
        ]
        for method, group, theirs in beside(results.methods, paper.rows)
    ]
    metric = results.metric_name
    columns = [f"zero-shot\n{metric}", f"adapted\n{metric}", "median\nof seeds", *(["adapted\nEM"] if exact else [])]
    return Table(
        title,
        ("method", "n", *columns, "paper", "vs.\npaper"),
        rows,
        (ours_are(results, FOLDED), papers_are(results, [paper], where), *notes(results, expected)),
    )


def _scores(group: Group | None, exact: bool) -> list[str]:
    if group is None:
        return [NOT_RUN] * (4 if exact else 3)
    scores = [group.mean("zero_shot"), group.mean("adapted"), group.median("adapted")]
    return [shown(score) for score in (*scores, *([group.mean("adapted", "exact_match")] if exact else []))]
