"""The prepare stage writes this task table beside the examples."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.names import TASKS
from mhrctl.artifacts.reading import read_json_of
from mhrctl.suites.files import first

NAMED = 5
"""Tasks that a message names."""


def task_metrics(prepared: Path) -> dict[str, str]:
    """Return {task: metric} of a prepared suite."""
    return {row["name"]: row["metric"] for row in read_json_of(prepared / TASKS)["tasks"]}


def rouge_tokenizers(prepared: Path) -> dict[str, str]:
    """Return {task: what its ROUGE cuts texts into tokens by} of a prepared suite; `english` where the table does not say."""
    return {row["name"]: row.get("rouge_tokenizer", "english") for row in read_json_of(prepared / TASKS)["tasks"]}


def training_data_sets(prepared: Path) -> dict[str, list[str]]:
    """Return {data set: its training tasks}: for tasks that are templates of one data set, else each task for itself.

    AdapterSoup trains an adapter for each (the paper's 38 on T0).
    """
    sets: dict[str, list[str]] = {}
    for row in read_json_of(prepared / TASKS)["tasks"]:
        if row["role"] == "training":
            sets.setdefault(row["dataset"], []).append(row["name"])
    return sets


def short_tasks(prepared: Path, *, shots: int | None, validation: int) -> dict[str, int]:
    """Return {test task: its examples} of tasks that have fewer to adapt with than are asked for.

    Args:
        prepared: output of the prepare stage.
        shots: training examples that are asked for; None asks for a whole few-shot set, of which no task has too few.
        validation: validation examples that are asked for.
    """
    short: dict[str, int] = {}
    for row in read_json_of(prepared / TASKS)["tasks"] if shots is not None else ():
        splits = row["splits"]
        train, others = splits.get("train", 0), splits.get("pool", 0) + splits.get("validation", 0)
        if row["role"] == "test" and shots is not None and (train + others < shots + validation if others else train < shots):
            short[row["name"]] = train + others
    return short


def shortage(prepared: Path, *, shots: int | None, validation: int) -> str | None:
    """Say which test tasks have fewer examples than are asked for, in a line; None if all have enough."""
    short = short_tasks(prepared, shots=shots, validation=validation)
    if not short:
        return None
    names = [f"{name} ({count})" for name, count in short.items()]
    return (
        f"fewer examples than the {shots} shots and {validation} of validation that are asked for, and what there is "
        f"is divided in this proportion: {first(names, NAMED)}"
    )
