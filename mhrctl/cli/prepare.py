"""`mhrctl prepare` splits tasks of a source, puts them into prompts and tokenises them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import Project
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
from mhrctl.cli.show import text_lines
from mhrctl.cli.threads import DEFAULT, prepare_threads
from mhrctl.config.tasks import PrepareParams
from mhrctl.suites.files import first

COLUMNS = {
    "tasks": "tasks",
    "examples": "examples",
    "train": "to train",
    "validation": "to validate",
    "test": "to score",
    "pool": "for shots",
}
"""{what is counted: how the table calls it}."""
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
    quieten("tokenizers")
    from mhrctl.stages.prepare import prepare as stage

    with (
        locked(out),
        logging_run(where.run_log("prepare"), threads=threads or DEFAULT),
        unedited(lambda: open_project(project, set_, recipe, reads=["prepare"])[1].params.prepare, *made.watched),
    ):
        table = stage(settings.params.prepare, root=where.root, out=out, scratch=where.scratch, track=display.track)
    rows = table["tasks"]
    display.err.print(_task_table(rows, table["suite"]))
    for reason, names in _by_reason(table["dropped"]).items():
        display.done(f"not used: {first(names, NAMED)}: {reason}")
    for what, count in table["notes"].items():
        display.done(f"note: {count} {what}")
    for line in [*_shortened(rows, settings.params.prepare), *_row_notes(rows)]:
        display.done(f"note: {line}")
    _show_sample(where, rows)
    display.done(f"wrote {out}; `mhrctl show` has more examples")


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


def _task_table(rows: Sequence[Mapping[str, Any]], suite: str) -> Table:
    """Counts by role: tasks, and examples by what they are for; what no role has is left out."""
    totals: dict[str, Counter[str]] = {}
    for row in rows:
        total = totals.setdefault(row["role"], Counter())
        total.update({"tasks": 1, "examples": sum(row["splits"].values())} | row["splits"])
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column(display.plain(f"suite {suite}"))
    columns = [key for key in COLUMNS if any(total[key] for total in totals.values())]
    for key in columns:
        shown.add_column(COLUMNS[key], justify="right")
    for role, total in totals.items():
        shown.add_row(role, *(f"{total[key]:,}" if total[key] else "-" for key in columns))
    return shown


def _shortened(rows: Sequence[Mapping[str, Any]], params: PrepareParams) -> Iterator[str]:
    """What was left out of examples or cut off them, by the setting that did it."""
    for column, what in (
        ("unused", f"examples are left over; prepare.examples takes {params.examples:,} of a task for each split"),
        ("cut_inputs", f"inputs longer than {params.max_input_tokens:,} tokens were cut (prepare.max_input_tokens)"),
        ("cut_targets", f"targets longer than {params.max_target_tokens:,} tokens were cut (prepare.max_target_tokens)"),
    ):
        if count := sum(row[column] for row in rows):
            yield f"{count:,} {what}"


def _show_sample(where: Project, rows: Sequence[Mapping[str, Any]]) -> None:
    """Show a prompt of a task, a test task if there is one, and its answer."""
    from mhrctl.tools.show import show

    name = min(rows, key=lambda row: row["role"] != "test")["name"]
    (example,) = show(where, tasks=[name]).examples
    display.done(f"\na prompt of `{name}`, as the model reads it:")
    for line in text_lines(example.prompt):
        display.err.print(Text("  ").append_text(line), soft_wrap=True)
    answers = " | ".join(target.text for target in example.targets)
    display.done(f"answer: {answers}\n")
