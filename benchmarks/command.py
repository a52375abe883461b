"""`python -m benchmarks [--only NAME ...] [--quick]`: measure, print the ratios, write results.json and results.md."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import (
    answering,
    artifacts,
    checks,
    compiled,
    decoder,
    end_to_end,
    grid,
    memory,
    preparing,
    reporting,
    routing,
    scoring,
    side_by_side,
    starting,
    steps,
)
from benchmarks.console import shown
from benchmarks.history import keep
from benchmarks.process import SETTINGS, quieten
from benchmarks.results import Measured, entry, environment, write

MEASUREMENTS: dict[str, Callable[[bool], Measured]] = {
    "steps": lambda quick: steps.measure(steps.PLANS[quick]),
    "end_to_end": lambda quick: end_to_end.measure(end_to_end.PLANS[quick]),
    "memory": lambda quick: memory.measure(memory.PLANS[quick]),
    "side_by_side": lambda quick: side_by_side.measure(side_by_side.PLANS[quick]),
    "scoring": lambda quick: scoring.measure(scoring.PLANS[quick]),
    "checks": lambda quick: checks.measure(checks.PLANS[quick]),
    "compiled": lambda quick: compiled.measure(compiled.PLANS[quick]),
    "artifacts": lambda quick: artifacts.measure(artifacts.PLANS[quick]),
    "decoder": lambda quick: decoder.measure(decoder.PLANS[quick]),
    "starting": lambda quick: starting.measure(starting.PLANS[quick]),
    "answering": lambda quick: answering.measure(answering.PLANS[quick]),
    "routing": lambda quick: routing.measure(routing.PLANS[quick]),
    "prepare": lambda quick: preparing.measure(preparing.PLANS[quick]),
    "report": lambda quick: reporting.measure(reporting.PLANS[quick]),
    "grid": lambda quick: grid.measure(grid.PLANS[quick]),
}
HEAVY = {False: ("grid", "starting"), True: ("grid", "starting", "compiled")}
"""{quick: measurements that are made only where they are named}."""
FOLDER = Path(__file__).parent


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for; returns 1 if a gate is not reached."""
    options = _parser().parse_args(arguments)
    if options.keep:
        keep(options.out / "history.md", options.keep, (options.out / "results.md").read_text(encoding="utf-8"))
        return 0
    torch.set_num_threads(1)
    quieten()
    file: Path = options.out / ("quick.json" if options.quick else "results.json")
    reached = True
    for name in options.only or [name for name in MEASUREMENTS if name not in HEAVY[options.quick]]:
        start = time.perf_counter()
        measured = MEASUREMENTS[name](options.quick)
        seconds = time.perf_counter() - start
        shown(f"\n{name} ({seconds:.0f} s)", measured)
        write(file, {name: entry(measured, environment(SETTINGS), quick=options.quick, seconds=seconds)})
        reached &= all(row.met != "missed" for row in measured.rows)
    shown(f"\nwrote {file.name} and {file.with_suffix('.md').name}")
    return 0 if reached else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="mhrctl against peft, one thread of CPU time.")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="few and small; written to quick.json and quick.md")
    parser.add_argument(
        "--keep", metavar="VERSION", help="measure nothing: put the results, as those of a release, into history.md"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    return parser
