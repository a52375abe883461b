"""A step of MHR against peft's LoRA compiled by torch.compile, the strongest peer of plain LoRA; for information."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import torch

from benchmarks.peers import Peer, always, ours, peft_lora, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_batch
from benchmarks.timing import interleave, milliseconds, ratio


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`; the time of compilation grows with its layers.
        repetitions: of each step.
        backend: of torch.compile.
    """

    shape: str
    repetitions: int
    backend: str = "inductor"


PLANS = {False: Plan("tiny", 15), True: Plan("micro", 15)}
"""{quick: plan}."""
HEADS = 8


def measure(plan: Plan) -> Measured:
    """Time one step of each; the compilation is not counted."""
    if plan.backend == "inductor" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return Measured([], notes=["not measured: torch.compile needs a C++ compiler, and there is none"])
    shape = SHAPES[plan.shape]
    batch = new_batch(shape)
    mine, eager, graph = ours(shape, heads=HEADS), peft_lora(shape), peft_lora(shape)
    single = ours(shape, heads=None)
    compiled = Peer(torch.compile(graph.model, backend=plan.backend), routed=False)  # type: ignore[arg-type]
    for peer in (eager, graph):
        peer.copy(single.adapter)
    require_equal("loss of LoRA", single.losses(batch), eager.loss(batch))
    loss = compiled.model(**compiled.inputs(batch)).loss  # in training mode, which has no noise here: one compilation will do
    require_equal("loss of compiled LoRA", single.losses(batch), loss.detach())
    steps = {
        f"MHR, heads {HEADS}": mine.trainer(always(batch)),
        "LoRA": single.trainer(always(batch)),
        "peft LoRA": eager.trainer(always(batch)),
        "peft LoRA, compiled": compiled.trainer(always(batch)),
    }
    times = interleave(steps, repetitions=plan.repetitions, warmup=2)
    mhr = times.pop(f"MHR, heads {HEADS}")
    rows = [
        Row(f"MHR step / {name} (heads {HEADS}, d_model {shape.d_model})", ratio(mhr, other)) for name, other in times.items()
    ]
    return Measured(rows, milliseconds(times | {f"MHR, heads {HEADS}": mhr}))
