"""Adaptations to many tasks side by side, against peft adapting to one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from benchmarks.peers import always, cycle, has_compiler, ours, peft_lora, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, Shape, new_samples
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.data.batches import Batch, collate
from mhrctl.models.speed import Speed

TARGETS = {"LoRA": (4.0, 5.0), "MHR": (8.0, 10.0)}
HEADS = {"LoRA": None, "MHR": 8}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`, for the backbone.
        runs: adaptations.
        repetitions: of a step of each.
        rows: examples of a run in a batch.
        inputs: tokens of the longest input.
        targets: tokens of the longest target.
        compiled: whether our step is measured with --compile too, against the same peer, which is not compiled.
    """

    shape: str
    runs: int
    repetitions: int
    rows: int = 4
    inputs: int = 32
    targets: int = 4
    compiled: bool = True


PLANS = {False: Plan("tiny", 16, 9), True: Plan("tiny", 16, 3, compiled=False)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time a step of all runs."""
    shape = replace(SHAPES[plan.shape], rows=plan.rows, inputs=plan.inputs, targets=plan.targets)
    together, single = run_batches(shape, plan.runs)
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for kind, heads in HEADS.items():
        models = [ours(shape, heads=heads, speed=speed).adapting(plan.runs) for speed in _speeds(plan)]
        mine = models[0]
        theirs = peft_lora(shape) if heads is None else peft_mhr(shape, heads=heads, tasks=1)
        losses = []
        for run, batch in enumerate(single):
            theirs.copy(mine.adapter, run)
            losses.append(theirs.loss(batch))
        for model in models:
            require_equal(f"losses of {kind} side by side", model.losses(together), torch.stack(losses))
        step = theirs.trainer(cycle(single))
        other = f"{kind}, {plan.runs} one by one with peft"
        steps: dict[str, Callable[[], object]] = {other: lambda step=step: [step() for _ in range(plan.runs)]}  # type: ignore[misc]
        for how, model in zip(("", " with --compile"), models, strict=False):
            steps[f"{kind}, {plan.runs} side by side{how}"] = model.trainer(always(together))
        times = interleave(steps, repetitions=plan.repetitions)
        for name in list(steps)[1:]:
            at_once = name.removeprefix(f"{kind}, {plan.runs} ")
            what = f"{plan.runs} adaptations one by one with peft / {at_once} ({kind}, d_model {shape.d_model})"
            gate, aim = (None, None) if "compile" in name else TARGETS[kind]
            rows.append(Row(what, ratio(times[other], times[name]), gate, aim, more_is_better=True))
        figures |= milliseconds(times)
    return Measured(rows, figures)


def _speeds(plan: Plan) -> list[Speed]:
    """How our step is run: as it is, and with --compile where there is a compiler."""
    return [Speed(), Speed(compile=True)] if plan.compiled and has_compiler() else [Speed()]


def run_batches(shape: Shape, runs: int) -> tuple[Batch, list[Batch]]:
    """The batch of all runs, and those of each."""
    samples = [new_samples(shape, shape.rows, seed=run) for run in range(runs)]
    every = [sample for of_run in samples for sample in of_run]
    return collate(every, [[0]] * runs), [collate(of_run, [[0] * shape.rows]) for of_run in samples]
