"""A step of MHR against peft's LoRA compiled by torch.compile as one graph, the strongest peer of plain LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.peers import Peer, always, has_compiler, ours, peft_lora, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, Shape, new_batch
from benchmarks.timing import Times, interleave, milliseconds, ratio
from mhrctl.models.speed import Speed

HEADS = 8
PEER = "peft LoRA, compiled"
COMPILED = "MHR, compiled"
GATES = {128: 1.05, 256: 1.0, 512: 1.0}
"""{d_model: gate of our step against the peer's, where both are compiled}."""
AIM = 0.95


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: names of `SHAPES`; the time in which the peer is compiled grows with their layers.
        repetitions: of each step.
        backend: of torch.compile.
    """

    shapes: Sequence[str]
    repetitions: int
    backend: str = "inductor"


PLANS = {False: Plan(("tiny", "small", "medium"), 11), True: Plan(("micro",), 15)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time one step of each; the compilation is not counted."""
    if plan.backend == "inductor" and not has_compiler():
        return Measured([], notes=["not measured: torch.compile needs a C++ compiler, and there is none"])
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for name in plan.shapes:
        shape = SHAPES[name]
        times = _times(shape, plan)
        figures |= {f"{name}: {step}": median for step, median in milliseconds(times).items()}
        of_shape = f"(heads {HEADS}, d_model {shape.d_model})"
        gate, aim = (GATES[shape.d_model], AIM) if shape.d_model in GATES else (None, None)
        rows.append(Row(f"{COMPILED}, step / {PEER} {of_shape}", ratio(times[COMPILED], times[PEER]), gate, aim))
        for mine, theirs in (("MHR", PEER), ("MHR", "peft LoRA"), ("MHR", "LoRA")):
            rows.append(Row(f"{mine} step / {theirs} {of_shape}", ratio(times[mine], times[theirs])))
    return Measured(rows, figures)


def _times(shape: Shape, plan: Plan) -> Times:
    """Seconds of a step of each; losses are proven equal first, those of what is compiled too."""
    batch = new_batch(shape)
    mine, fused = ours(shape, heads=HEADS), ours(shape, heads=HEADS, speed=Speed(compile=True))
    eager, graph, single = peft_lora(shape), peft_lora(shape), ours(shape, heads=None)
    compiled = Peer(torch.compile(graph.model, backend=plan.backend), routed=False)  # type: ignore[arg-type]
    for peer in (eager, graph):
        peer.copy(single.adapter)
    require_equal("loss of LoRA", single.losses(batch), eager.loss(batch))
    loss = compiled.model(**compiled.inputs(batch)).loss  # in training mode, which has no noise here: one compilation will do
    require_equal("loss of compiled LoRA", single.losses(batch), loss.detach())
    require_equal("loss of MHR compiled", fused.losses(batch), mine.losses(batch))
    steps = {
        "MHR": mine.trainer(always(batch)),
        COMPILED: fused.trainer(always(batch)),
        "LoRA": single.trainer(always(batch)),
        "peft LoRA": eager.trainer(always(batch)),
        PEER: compiled.trainer(always(batch)),
    }
    return interleave(steps, repetitions=plan.repetitions, warmup=2)
