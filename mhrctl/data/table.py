"""The prepare stage writes this task table beside the examples."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.names import TASKS
from mhrctl.artifacts.reading import read_json_of


def task_metrics(prepared: Path) -> dict[str, str]:
    """Return {task: metric} of a prepared suite."""
    return {row["name"]: row["metric"] for row in read_json_of(prepared / TASKS)["tasks"]}


def training_data_sets(prepared: Path) -> dict[str, list[str]]:
    """Return {data set: its training tasks}: for tasks that are templates of one data set, else each task for itself.

    AdapterSoup trains an adapter for each (the paper's 38 on T0).
    """
    sets: dict[str, list[str]] = {}
    for row in read_json_of(prepared / TASKS)["tasks"]:
        if row["role"] == "training":
            sets.setdefault(row["dataset"], []).append(row["name"])
    return sets
