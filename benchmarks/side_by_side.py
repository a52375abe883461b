"""Adaptations to many tasks side by side, against peft adapting to one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benchmarks.peers import always, cycle, ours, peft_lora, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, Shape, new_samples
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.data.batches import Batch, collate

TARGETS = {"LoRA": (3.0, 4.0), "MHR": (4.5, 6.0)}
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
    """

    shape: str
    runs: int
    repetitions: int
    rows: int = 4
    inputs: int = 32
    targets: int = 4


PLANS = {False: Plan("tiny", 16, 9), True: Plan("tiny", 16, 3)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time a step of all runs."""
    shape = replace(SHAPES[plan.shape], rows=plan.rows, inputs=plan.inputs, targets=plan.targets)
    together, single = run_batches(shape, plan.runs)
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for kind, heads in HEADS.items():
        mine = ours(shape, heads=heads).adapting(plan.runs)
        theirs = peft_lora(shape) if heads is None else peft_mhr(shape, heads=heads, tasks=1)
        losses = []
        for run, batch in enumerate(single):
            theirs.copy(mine.adapter, run)
            losses.append(theirs.loss(batch))
        require_equal(f"losses of {kind} side by side", mine.losses(together), torch.stack(losses))
        step = theirs.trainer(cycle(single))
        steps = {
            f"{kind}, {plan.runs} side by side": mine.trainer(always(together)),
            f"{kind}, {plan.runs} one by one with peft": lambda step=step: [step() for _ in range(plan.runs)],  # type: ignore[misc]
        }
        times = interleave(steps, repetitions=plan.repetitions)
        at_once, other = times.values()
        what = f"{plan.runs} adaptations one by one with peft / side by side ({kind}, d_model {shape.d_model})"
        rows.append(Row(what, ratio(other, at_once), *TARGETS[kind], more_is_better=True))
        figures |= milliseconds(times)
    return Measured(rows, figures)


def run_batches(shape: Shape, runs: int) -> tuple[Batch, list[Batch]]:
    """The batch of all runs, and those of each."""
    samples = [new_samples(shape, shape.rows, seed=run) for run in range(runs)]
    every = [sample for of_run in samples for sample in of_run]
    return collate(every, [[0]] * runs), [collate(of_run, [[0] * shape.rows]) for of_run in samples]
