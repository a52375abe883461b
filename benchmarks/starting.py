"""What people wait for beside the work itself: commands and stages that start, and runs that have nothing to do."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.projects import ROOT, change_params, run
from benchmarks.results import Measured, Row
from benchmarks.timing import Times, interleave, ratio, spread

ALONE, FORKED = {"MHRCTL_FORKSERVER": "off"}, dict[str, str]()
"""Environments: each command imports everything by itself; commands of a run are forked from one that has."""
STARTS = (0.4, 0.2)
COMMANDS = {"`mhrctl --help`": ("--help",), "`mhrctl evaluate` of nothing new": ("evaluate", "mhr-h8-s0")}
WAITS = (0.3, 0.2)
RUNS = (80.0, 40.0)
FIRST = "adapt@lora-s0"
"""One of the stages of `adapt`: what it takes alone is DVC's own start, and that of a server."""
SEEDS = {28: (1.3, 0.8), 80: (3.5, 2.0)}
"""{seeds of the demo's grid: seconds for a run of nothing}; 397 and 1,125 stages."""
STAGES_OF = ("average", "adapt")
"""Stages whose start is timed: one that needs torch alone, and one that needs all there is."""
STAND_IN = """\
stage=$1; cell=$2; folder=data/$stage${cell:+/$cell}
mkdir -p $folder data/prepare/tokenizer data/metrics/pretrain data/metrics/adapt data/metrics/evaluate data/report
echo "$stage $cell" | tee $folder/config.json > $folder/adapter.safetensors
case $stage in
  prepare) for name in training_tasks backbone_tasks test_tasks test_examples; do echo $name > $folder/$name.parquet; done
    echo words > $folder/tokenizer/tokenizer.json ;;
  pretrain | adapt) printf 'step,loss\\n1,2\\n' > data/metrics/$stage/$cell.csv ;;
  evaluate) echo '{"score": 1}' > data/metrics/evaluate/$cell.json ;;
  report) for name in table1.md table2.md results.md differences.md summary.json scores.csv curves.csv; do
      echo '{}' > $folder/$name
    done ;;
esac
"""
"""A shell's part of each stage: its outputs, of a few bytes."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        repetitions: of commands and stages; runs of nothing have half as many.
        seeds: of the grids that have nothing to do.
        settings: {section: {key: value}} over the params.yaml that `init` writes.
    """

    repetitions: int
    seeds: tuple[int, ...]
    settings: Mapping[str, Mapping[str, object]]


PLANS = {
    False: Plan(3, tuple(SEEDS), {}),
    True: Plan(1, (1,), {"backbone": {"scratch": {"steps": 5}}, "pretrain": {"steps": 2}, "adapt": {"steps": 2}}),
}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Run commands, stages and projects as processes, in wall time."""
    with tempfile.TemporaryDirectory() as folder:
        example = Path(folder, "example")
        run(Path(folder), "mhrctl", "init", str(example))
        change_params(example, plan.settings)
        run(example, "mhrctl", "grid", "sync")
        rows, figures = _example(example)
        for part_rows, part_figures in (_commands(example, plan), _starts(example, plan), _nothing(Path(folder), plan)):
            rows += part_rows
            figures |= part_figures
    return Measured(rows, figures, ["wall time of processes, on all cores"])


def _example(project: Path) -> tuple[list[Row], dict[str, float]]:
    """All of `init`'s example."""
    seconds = _seconds(partial(run, project, "mhrctl", "run"))
    return [_row("seconds of `mhrctl run` of init's example, no options", [seconds], RUNS)], {
        "example: seconds": round(seconds, 1)
    }


def _commands(project: Path, plan: Plan) -> tuple[list[Row], dict[str, float]]:
    """Commands that import no torch."""
    calls = {name: partial(run, project, "mhrctl", *words) for name, words in COMMANDS.items()}
    times = interleave(calls, repetitions=plan.repetitions, clock=time.perf_counter)
    return [_row(f"seconds of {name}", seconds, WAITS) for name, seconds in times.items()], _medians(times)


def _starts(project: Path, plan: Plan) -> tuple[list[Row], dict[str, float]]:
    """Stages of one step from start to end, as jobs of `mhrctl run` are started, and as `dvc repro` does."""
    change_params(project, {"adapt": {"steps": 1}})
    run(project, "mhrctl", "grid", "sync")
    job = {"DVC_STAGE": "benchmark"}
    calls = {}
    for name, variables in (("forked", {"MHRCTL_FORKSERVER": str(os.getpid())}), ("alone", ALONE)):
        for stage in STAGES_OF:
            calls[f"{stage}, {name}"] = partial(
                run, project, "mhrctl", stage, "--cell", "mhr-h8-s0", "--force", environment=job | variables
            )
    for name, variables in (("forked", FORKED), ("alone", ALONE)):
        for target in ("adapt", FIRST):
            calls[f"dvc repro {target}, {name}"] = partial(
                run, project, "dvc", "repro", "--force", "--single-item", target, environment=variables
            )
    times = interleave(calls, repetitions=plan.repetitions, clock=time.perf_counter)
    for name in ("forked", "alone"):
        both = zip(times[f"dvc repro adapt, {name}"], times[f"dvc repro {FIRST}, {name}"], strict=True)
        times[f"further, {name}"] = [every - first for every, first in both]
    what = {stage: f"`{stage}` of one step in `mhrctl run`, forked / by itself" for stage in STAGES_OF}
    what["further"] = "further `adapt`s of one step in `dvc repro`, forked / by themselves"
    rows = [Row(words, ratio(times[f"{name}, forked"], times[f"{name}, alone"]), *STARTS) for name, words in what.items()]
    return rows, _medians(times)


def _nothing(folder: Path, plan: Plan) -> tuple[list[Row], dict[str, float]]:
    """Runs of the demo's grid, with stand-ins for its stages, that have nothing to do."""
    rows, figures = list[Row](), dict[str, float]()
    for seeds in plan.seeds:
        project = folder / f"grid-{seeds}"
        stages = _stand_ins(project, seeds)
        calls = {"run": partial(run, project, "mhrctl", "run")}
        times = interleave(calls, repetitions=(plan.repetitions + 1) // 2, clock=time.perf_counter)["run"]
        what = f"seconds of `mhrctl run` with nothing to do, {stages:,} stages"
        rows.append(_row(what, times, SEEDS.get(seeds)))
        figures |= _medians({f"run of nothing, {stages} stages": times})
    return rows, figures


def _stand_ins(project: Path, seeds: int) -> int:
    """Make a project whose stages are shell commands, and have them run; returns how many there are."""
    project.mkdir()
    dvc_yaml = re.sub(r"cmd: mhrctl (?!grid)(\w+)(?: --cell)?", r"cmd: sh stand_in.sh \1", (ROOT / "dvc.yaml").read_text())
    (project / "dvc.yaml").write_text(dvc_yaml)
    (project / "stand_in.sh").write_text(STAND_IN)
    shutil.copy(ROOT / "params.yaml", project)
    change_params(project, {"grid": {"seeds": list(range(seeds))}})
    run(project, "dvc", "init", "--no-scm", "--quiet")
    run(project, "mhrctl", "grid", "sync")
    run(project, "mhrctl", "run")
    names = run(project, "dvc", "stage", "list", "--name-only").split()
    return len(names)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _row(what: str, seconds: list[float], targets: tuple[float, float] | None) -> Row:
    return Row(what, spread(seconds), *(targets or (None, None)))


def _medians(times: Times) -> dict[str, float]:
    return {f"{name}: seconds": round(float(np.median(seconds)), 2) for name, seconds in times.items()}
