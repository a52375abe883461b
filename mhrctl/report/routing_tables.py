"""An inspection of a routing is laid out as tables: its measures, and the tasks that it treats alike."""

from __future__ import annotations

from collections.abc import Sequence

from mhrctl.adapters.granularity import CODERS
from mhrctl.analysis.routing_measures import Inspection
from mhrctl.analysis.routing_similarity import Comparison, Pair
from mhrctl.report.table import Table

COLUMNS = ("gates on\n(sparsity)", "discreteness", "efficiency", "effective\nskills")


def measures_table(title: str, measured: Inspection, training: Inspection | None, *, skills: int) -> Table:
    """Lay out the measures of encoder, decoder and all.

    Args:
        title: of the table.
        measured: what was inspected.
        training: the training tasks beside it, where test tasks were.
        skills: of the inventory.
    """
    rows = []
    for whose, inspection in [("", measured)] if training is None else [("test, ", measured), ("training, ", training)]:
        for name, measures in [*((coder, inspection.of_coder(coder)) for coder in CODERS), ("all", inspection.overall)]:
            if measures:
                numbers = (measures.sparsity, measures.discreteness, measures.efficiency, measures.effective_skills)
                rows.append([whose + name, *(f"{number:.3f}" for number in numbers)])
    notes = [
        "Gates on: their share, 1 is all. Discreteness: bits a gate, 0 is decided. Efficiency: 1 uses all skills alike.",
        f"Effective: skills that a task mixes, exp(entropy of its weights), mean over tasks; of {skills}.",
    ]
    return Table(title, ("tasks, part" if training else "part", *COLUMNS), rows, notes)


def pairs_table(pairs: Sequence[Pair], comparison: Comparison | None, *, with_tests: bool) -> Table:
    """Lay out pairs of tasks, and how far the routing agrees with the inputs.

    Args:
        pairs: to show, in this order.
        comparison: with the inputs, if there is one.
        with_tests: whether they are of a test task and a training task each.
    """
    rows = [[*pair.tasks, f"{pair.routing:.3f}", "-" if pair.inputs is None else f"{pair.inputs:.3f}"] for pair in pairs]
    notes = []
    if comparison:
        rho = comparison.correlation
        of_pairs = f"{rho.pairs:,} pairs: Spearman {rho.spearman:.2f}, p {rho.p:.3f}." if rho else "the same for all pairs."
        notes.append(f"Routing and inputs, {of_pairs}")
    if with_tests:
        title, columns = "test tasks, and the training task routed most like each", ("test task", "training task")
    else:
        title, columns = "training tasks routed most alike", ("task", "and")
    return Table(title, (*columns, "cosine of\nrouting", "cosine of\ninputs"), rows, notes)
