"""Activations that a step keeps for its backward, against peft's MHR and the frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.peers import TOLERANCES, Precision, frozen_trainer, ours, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_backbone, new_batch
from benchmarks.timing import Ratio
from mhrctl.models.backbones import PRECISIONS
from mhrctl.models.speed import Speed

TARGETS: dict[Precision, tuple[float, float]] = {"fp32": (0.60, 0.50), "bf16": (0.40, 0.30)}
HEADS = 8
MB = 1e6
PADDED = Speed(packing=False)
"""All have the same padding."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`.
    """

    shape: str


PLANS = {False: Plan("small"), True: Plan("tiny")}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Count the bytes in both precisions; they are the same at every repetition."""
    shape = SHAPES[plan.shape]
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for precision, (gate, aim) in TARGETS.items():
        batch = new_batch(shape)
        mine = ours(shape, heads=HEADS, precision=precision, speed=PADDED)
        theirs = peft_mhr(shape, heads=HEADS, precision=precision)
        theirs.copy(mine.adapter)
        tolerance = TOLERANCES[precision]
        require_equal(f"loss of MHR in {precision}", mine.losses(batch), theirs.loss(batch), tolerance=tolerance)
        bare = new_backbone(shape, PRECISIONS[precision])
        saved = {
            "MHR": saved_bytes(lambda: mine.objective(mine.model, batch, runs=1), mine.model.parameters()),  # noqa: B023
            "peft MHR": saved_bytes(lambda: theirs.model(**theirs.inputs(batch)).loss, theirs.model.parameters()),  # noqa: B023
            "frozen limit": saved_bytes(frozen_trainer(bare, batch), bare.parameters()),
        }
        figures |= {f"{name}, {precision}: MB": round(number / MB, 2) for name, number in saved.items()}
        for other, targets in (("peft MHR", (gate, aim)), ("frozen limit", (None, None))):
            part = saved["MHR"] / saved[other]
            what = f"activation memory of MHR / {other} ({precision}, heads {HEADS}, d_model {shape.d_model})"
            rows.append(Row(what, Ratio(part, part, part), *targets))
    return Measured(rows, figures)


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages that a forward saves for backward, those of parameters excluded."""
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            kept.setdefault(place, tensor)  # held, so that no other storage comes to lie there
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
