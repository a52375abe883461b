"""A pre-training step of MHR against peft's MHR, peft's LoRA and the frozen model, on the same padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.peers import always, frozen_trainer, has_compiler, ours, peft_lora, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, Shape, new_backbone, new_batch
from benchmarks.timing import Steps, interleave, milliseconds, ratio
from mhrctl.models.speed import Speed

PEERS = {
    "peft MHR": ("peft MHR, heads {heads}", {1: (0.75, 0.70), 8: (0.70, 0.65), 64: (0.68, 0.60)}),
    "peft LoRA, eager": ("peft LoRA", dict.fromkeys((1, 8, 64), (0.95, 0.82))),
    "frozen limit": ("frozen limit", dict.fromkeys((1, 8, 64), (1.08, 0.95))),
}
"""{title: (its step, {heads: gate and aim of MHR's step against it})}."""
WIDE = 256
"""Least d_model that the gates are for."""
PADDED = Speed(packing=False)
"""All have the same padding."""
COMPILED = replace(PADDED, compile=True)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: names of `SHAPES`.
        heads: of MHR.
        repetitions: of each step.
        compiled: whether our step is measured with --compile too, against the same peer, which is not compiled.
    """

    shapes: Sequence[str]
    heads: Sequence[int]
    repetitions: int
    compiled: bool = False


PLANS = {False: Plan(("small", "medium"), (1, 8, 64), 9), True: Plan(("small",), (8,), 5)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time one training step of each, in one run for each shape."""
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for name in plan.shapes:
        shape = SHAPES[name]
        compiled = plan.compiled and has_compiler()
        times = interleave(_trainers(shape, plan.heads, compiled=compiled), repetitions=plan.repetitions)
        figures |= {f"{name}: {step}": median for step, median in milliseconds(times).items()}
        for title, (step, targets) in PEERS.items():
            for heads in plan.heads:
                gate, aim = targets.get(heads, (None, None)) if shape.d_model >= WIDE else (None, None)
                value = ratio(times[f"MHR, heads {heads}"], times[step.format(heads=heads)])
                rows.append(Row(f"MHR step / {title} (heads {heads}, d_model {shape.d_model})", value, gate, aim))
        for heads in plan.heads if compiled else ():
            value = ratio(times[f"MHR with --compile, heads {heads}"], times[f"peft MHR, heads {heads}"])
            rows.append(Row(f"MHR step with --compile / peft MHR, eager (heads {heads}, d_model {shape.d_model})", value))
    return Measured(rows, figures)


def _trainers(shape: Shape, heads: Sequence[int], *, compiled: bool) -> Steps:
    """A step of each; MHR's losses are proven equal to peft's."""
    batch = new_batch(shape)
    steps = {"frozen limit": frozen_trainer(new_backbone(shape), batch), "peft LoRA": peft_lora(shape).trainer(always(batch))}
    for number in heads:
        mine, theirs = ours(shape, heads=number, speed=PADDED), peft_mhr(shape, heads=number)
        theirs.copy(mine.adapter)
        require_equal(f"loss of MHR with {number} heads", mine.losses(batch), theirs.loss(batch))
        steps[f"MHR, heads {number}"] = mine.trainer(always(batch))
        steps[f"peft MHR, heads {number}"] = theirs.trainer(always(batch))
        if compiled:
            fused = ours(shape, heads=number, speed=COMPILED)
            require_equal(f"loss of compiled MHR with {number} heads", fused.losses(batch), theirs.loss(batch))
            steps[f"MHR with --compile, heads {number}"] = fused.trainer(always(batch))
    return steps
