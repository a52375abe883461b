"""The demo's grid through `mhrctl run`, with every option on and off, in wall time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.projects import ROOT, change_params, run
from benchmarks.results import Measured, Row
from benchmarks.timing import Ratio

TARGETS = (3.2, 4.0)
WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "every option off": (1, {"MHRCTL_OFF": "all", "MHRCTL_FORKSERVER": "off"}),
    "speed options on": (1, {}),
    "speed options on, two jobs": (2, {}),
}
"""{way: jobs at once, environment}; the first has every option off, the last every option on."""
COMMON = ("prepare", "backbone")
"""Stages before the grid, which are not timed."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        project: folder with params.yaml, dvc.yaml and whatever params.yaml names; a `data/backbone` in it is taken over.
        settings: {section: {key: value}} over params.yaml.
    """

    project: Path
    settings: Mapping[str, Mapping[str, Any]]


PLANS = {
    False: Plan(ROOT, {"grid": {"seeds": [0]}}),
    True: Plan(ROOT, {"pretrain": {"steps": 30}, "adapt": {"steps": 10}, "grid": {"seeds": [0], "methods": {"lora": None}}}),
}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Run all cells several times, from the same prepared examples and backbone, one time after the other."""
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        _copy_project(plan.project, start)
        change_params(start, plan.settings)
        run(start, "dvc", "init", "--no-scm", "--quiet")
        run(start, "mhrctl", "grid", "sync")
        run(start, "dvc", "repro", "--quiet", *COMMON)
        seconds = {}
        for number, (name, (jobs, environment)) in enumerate(WAYS.items()):
            project = Path(shutil.copytree(start, Path(folder) / str(number), symlinks=True))
            seconds[name] = _seconds(project, jobs, environment)
    off, on, two = seconds.values()
    rows = [
        _row("the demo's grid, all options off and one job / all on and two jobs, wall time", off / two, *TARGETS),
        _row("the demo's grid, every speed option off / on, one job, wall time", off / on),
        _row("the demo's grid, one job / two jobs, wall time", on / two),
    ]
    figures = {f"{name}: seconds": round(number, 1) for name, number in seconds.items()}
    return Measured(rows, figures, ["one seed of the demo's grid, measured once, by `mhrctl run`, one thread a job"])


def _row(what: str, gain: float, gate: float | None = None, aim: float | None = None) -> Row:
    return Row(what, Ratio(gain, gain, gain), gate, aim, more_is_better=True)


def _copy_project(project: Path, target: Path) -> None:
    """What a project's user wrote, and its backbone."""
    target.mkdir()
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        if (project / name).exists():
            shutil.copy(project / name, target)
    for name in ("tasks", "data/backbone"):
        if (project / name).exists():
            shutil.copytree(project / name, target / name)


def _seconds(project: Path, jobs: int, environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    run(project, "mhrctl", "run", "--jobs", str(jobs), "--threads", "1", environment=environment)
    return time.perf_counter() - start
