"""`mhrctl prepare` splits tasks of a source, puts them into prompts and tokenises them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.options import (
    HERE,
    ForceOption,
    ProjectOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    nothing_to_do,
    open_project,
    quieten,
)
from mhrctl.cli.threads import DEFAULT, prepare_threads
from mhrctl.suites.files import first

NAMED = 5
"""Tasks named for one reason; tasks.json has them all."""


def prepare(
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    threads: ThreadsOption = None,
    force: ForceOption = False,
) -> None:
    """Read the suite's tasks, split them, put them into prompts and tokenise them."""
    where, settings = open_project(project, set_, recipe, reads=["prepare"])
    out = where.output("prepare")
    made = provenance.of_prepare(settings.params.prepare, root=where.root)
    if nothing_to_do(made, out, force=force):
        return
    prepare_threads(threads, "cpu")
    quieten()
    from mhrctl.stages.prepare import prepare as stage

    with (
        locked(out),
        logging_run(where.run_log("prepare"), threads=threads or DEFAULT),
        unedited(lambda: open_project(project, set_, recipe, reads=["prepare"])[1].params.prepare, *made.watched),
    ):
        table = stage(settings.params.prepare, root=where.root, out=out, scratch=where.scratch, track=display.track)
    display.err.print(_task_table(table))
    for reason, names in _by_reason(table["dropped"]).items():
        display.done(f"not used: {first(names, NAMED)}: {reason}")
    for what, count in table["notes"].items():
        display.done(f"note: {count} {what}")
    for line in _row_notes(table["tasks"]):
        display.done(f"note: {line}")
    display.done(f"wrote {out}")


ROW_NOTES = {
    ("repeats", "of_tests"): "examples equal to a test example are kept out of training",
    ("repeats", "of_tests_kept"): "few-shot examples equal to a test example stay, as the source gives them",
    ("repeats", "in_pool"): "examples that repeat another are left out",
    ("repeats", "in_tests"): "test examples repeat another, and count as often",
    ("unknown", "inputs"): "inputs have words that the tokenizer does not know",
    ("unknown", "targets"): "targets have words that the tokenizer does not know",
    ("unknown", "choices"): "choices have words that the tokenizer does not know",
    ("unknown", "unsayable"): "examples have no target that the tokenizer can say",
    ("unknown", "alike"): "examples have a wrong choice of the same tokens as the right one",
}
"""{where a row of the task table counts something: what}."""


def _row_notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the rows of the task table count besides their examples: how many, what, and of which tasks."""
    for (column, key), what in ROW_NOTES.items():
        counts = {row["name"]: row[column].get(key, 0) for row in rows if row[column].get(key, 0)}
        if counts:
            yield f"{sum(counts.values()):,} {what}: {first([f'{name} ({count:,})' for name, count in counts.items()], NAMED)}"


def _by_reason(dropped: dict[str, str]) -> dict[str, list[str]]:
    """{reason: the tasks that are not used for it}."""
    reasons: dict[str, list[str]] = {}
    for name, reason in dropped.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _task_table(table: dict[str, Any]) -> Table:
    """Counts by role: tasks, examples by split, and what was cut or left over."""
    shown = Table(title=f"suite {table['suite']}")
    columns = ("tasks", "train", "validation", "test", "pool", "unused", "cut inputs", "cut targets")
    shown.add_column("role")
    for column in columns:
        shown.add_column(column, justify="right")
    for role in dict.fromkeys(row["role"] for row in table["tasks"]):
        total: Counter[str] = Counter()
        for row in table["tasks"]:
            if row["role"] == role:
                total.update(
                    {
                        "tasks": 1,
                        "unused": row["unused"],
                        "cut inputs": row["cut_inputs"],
                        "cut targets": row["cut_targets"],
                    }
                )
                total.update(row["splits"])
        shown.add_row(role, *(f"{total[column]:,}" for column in columns))
    return shown
