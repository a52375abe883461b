"""A table has what lm-evaluation-harness said of the cells, in its own numbers, task by task."""

from __future__ import annotations

from collections.abc import Iterator

from mhrctl.artifacts.cards import cell_in, try_card
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.errors import counted, listed
from mhrctl.evaluation.harness_scores import HarnessScore, inputs_of, read_harness
from mhrctl.report.table import Table, Value

NOTHING_ASKED = "The harness was not asked yet; run `mhrctl evaluate CELL --harness TASKS`."


def harness_table(project: Project) -> Table:
    """Tabulate the scores that the harness has given to what the cells are now.

    Args:
        project: with `data/metrics/harness`; scores of adapters or examples that have changed since are left out, and named.

    Raises:
        ArtifactError: if scores are malformed.
    """
    rows, stale, versions = [], [], set()
    for file in sorted(project.harness("*").parent.glob("*.json")):
        said, now = read_harness(file), inputs_of(project, _cell(project, file.stem))
        current = [score for score in said.scores if all(now.get(name) == mark for name, mark in score.made_from.items())]
        stale += [file.stem] * (len(said.scores) > len(current))
        versions |= {score.harness for score in current}
        rows += [row for score in current for row in _rows(file.stem, score)]
    notes = [NOTHING_ASKED] if not rows and not stale else []
    if versions:
        notes.append(f"By lm-evaluation-harness {listed(sorted(versions))}; most of its numbers go from 0 to 1.")
    if any(row[0].endswith(")") for row in rows):
        notes.append("What is of the first examples of a task alone, or has examples in its prompts, says so behind the task.")
    if stale:
        notes.append(f"Left out, since their adapters or examples have changed since: {listed(stale)}.")
    # By task first: what is to be compared stands together.
    ordered = sorted(rows, key=lambda row: (row[0], row[3], row[1], row[2]))
    return Table("lm-evaluation-harness", ("task", "cell", "adapter", "metric", "score"), ordered, notes)


def _cell(project: Project, name: str) -> Cell | None:
    """The cell of a name, as the card of one of its outputs has it; None of the backbone, and where there is none."""
    cards = (try_card(project.output(stage, name)) for stage in ("adapt", "evaluate", "pretrain"))
    return next((cell for card in cards if card and (cell := cell_in(card))), None)


def _rows(cell: str, score: HarnessScore) -> Iterator[list[str]]:
    how = [f"first {score.limit:,}"] if score.limit is not None else []
    how += [counted(score.fewshot, "example")] if score.fewshot else []
    task = f"{score.task} ({', '.join(how)})" if how else score.task
    for metric, value in score.metrics.items():
        error = score.stderr.get(metric)
        text = f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
        yield [task, cell, score.adapter, metric, Value(text, {"": value, "stderr": error})]
