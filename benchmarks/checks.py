"""What it costs to look at every step whether its losses and gradients are finite, as a part of a pre-training step of MHR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from benchmarks.peers import always, ours
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_batch
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.training.divergence import UNNAMED, Watch

HEADS = 8
MILLION = 1e6
TARGETS = (5000.0, 1000.0)
"""Gate and aim of the check, in millionths of a step: half a percent, and a tenth of one."""
CALLS = 200
"""Checks that are timed at once: one is shorter than what a clock tells apart."""
LARGE = 256
"""Least d_model that the gate is for."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: names of `SHAPES`.
        runs: trained side by side, whose losses are looked at one by one.
        repetitions: of a step, and of as many checks as `CALLS`.
    """

    shapes: Sequence[str]
    runs: Sequence[int]
    repetitions: int


PLANS = {False: Plan(("small", "medium"), (1, 16), 9), True: Plan(("small",), (1,), 5)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time a step of the stages' own loop, and the checks alone, in turn.

    On a CPU a check is read in every step. On other devices only what notes a step is in it, and nothing is read.
    """
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for name in plan.shapes:
        shape = SHAPES[name]
        steps = {"step": ours(shape, heads=HEADS).trainer(always(new_batch(shape)))}
        checks = {f"{CALLS} checks, {runs} run(s)": Checks(runs).take for runs in plan.runs}
        times = interleave(steps | checks, repetitions=plan.repetitions)
        figures |= {f"{name}: {what}": median for what, median in milliseconds(times).items()}
        for runs, check in zip(plan.runs, checks, strict=True):
            value = ratio(times[check], times["step"], scale=MILLION / CALLS)
            targets = TARGETS if shape.d_model >= LARGE else (None, None)
            what = (
                f"check of finite numbers, {runs} run(s), in millionths of a MHR step (heads {HEADS}, d_model {shape.d_model})"
            )
            rows.append(Row(what, value, *targets))
    return Measured(rows, figures)


class Checks:
    """Checks of steps that are all finite, one after the other, as the loop makes them."""

    def __init__(self, runs: int) -> None:
        self._watch = Watch(UNNAMED, Accelerator(cpu=True), lambda _step: {}, first=0)
        self._losses, self._norms = torch.ones(runs), torch.ones(runs)

    def take(self) -> None:
        """Make as many as are timed at once."""
        for _ in range(CALLS):
            self._watch.note(self._losses, self._norms)
            self._watch.require_finite()
