"""What it costs that an output proves itself: a hash and the wait for the disk when it is written, a hash when it is read."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.results import Measured, Row
from benchmarks.timing import Ratio
from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.artifacts.placing import settle
from mhrctl.artifacts.reading import verify


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        megabytes: of the artifact.
        rounds: how often; the median counts.
    """

    megabytes: int
    rounds: int


PLANS = {False: Plan(400, 5), True: Plan(20, 3)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Write and read an artifact with and without what proves it, from the page cache, in CPU and wall time."""
    tensors = {f"layer{number}": torch.full((2**18,), float(number)) for number in range(plan.megabytes)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / ADAPTERS
        made = Card.of("prepare", {}, {}, PrepareFacts(suite="", tokenizer="", vocab_size=0))
        parts: dict[str, Callable[[], object]] = {
            "write": lambda: save_file(tensors, file),
            "card with its hash": lambda: write_card(folder, made),
            "wait for the disk": lambda: settle(folder),
            "read": lambda: [
                tensor.clone() for tensor in load_file(file).values()
            ],  # which is mapped, and read when it is used
            "compare with the card": lambda: verify(file),
        }
        taken: dict[str, list[tuple[float, float]]] = {part: [] for part in parts}
        for _ in range(plan.rounds):
            for part, call in parts.items():
                taken[part].append(_timed(call))
    cpu = {part: [of_cpu for of_cpu, _ in times] for part, times in taken.items()}
    wall = {part: statistics.median(seconds for _, seconds in times) for part, times in taken.items()}
    what = f"of {plan.megabytes} MB, CPU time"
    rows = [
        _row(f"an output's end with its card / without, {what}", cpu, "write", ["card with its hash", "wait for the disk"]),
        _row(f"an input's reading with its comparison / without, {what}", cpu, "read", ["compare with the card"]),
    ]
    figures = {f"{part}, {plan.megabytes} MB: ms of CPU": statistics.median(times) * 1000 for part, times in cpu.items()}
    figures |= {f"{part}, {plan.megabytes} MB: ms": seconds * 1000 for part, seconds in wall.items()}
    return Measured(rows, {name: round(number, 1) for name, number in figures.items()}, ["from the page cache"])


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def _row(what: str, cpu: dict[str, list[float]], base: str, more: list[str]) -> Row:
    ratios = sorted(
        (sum(times) + alone) / alone
        for alone, *times in zip(cpu[base], *(cpu[part] for part in more), strict=True)
        if alone > 0
    )
    return Row(what, Ratio(statistics.median(ratios), ratios[0], ratios[-1]))
