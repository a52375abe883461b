"""T5-XL and a decoder on a CUDA device: a step, its memory, adaptations side by side. `python -m benchmarks.gpu [--dry]`.

The arithmetic of a step of T5 with frozen weights, each multiplication and addition counted:

    linear layers   2 N_in (layers (4 d i + 3 d f) + layers 2 d i)   encoder, and the decoder's keys and values of its states
                  + 2 N_out (layers (6 d i + 3 d f) + d v)           decoder, output layer
    attention       4 rows layers i (L_in^2 + L_out^2 + L_in L_out)
    a step          2 linear + 3.5 attention

with N tokens, d = d_model, i = attention heads * d_kv, f = d_ff, v entries. Backward is the gradient of the activations alone,
once the linear forward; attention is counted as 2.5 forwards, its scores being made again. Adapters of rank 1 add 0.1 %
and are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import gpu_decoder
from benchmarks.console import shown
from benchmarks.gpu_timing import forget, peak_memory, timed
from benchmarks.peers import (
    TOLERANCES,
    Ours,
    Precision,
    Trainer,
    always,
    cycle,
    frozen_trainer,
    ours,
    peft_lora,
    peft_mhr,
    require_equal,
)
from benchmarks.process import quieten
from benchmarks.results import Measured, Row, entry, environment, write
from benchmarks.shapes import SHAPES, Shape, new_backbone, new_batch
from benchmarks.side_by_side import run_batches
from benchmarks.timing import Ratio, Times, milliseconds, ratio
from mhrctl.data.batches import Batch
from mhrctl.models.backbones import PRECISIONS
from mhrctl.training.divergence import Watch

HEADS = 8
LORA = (0.55, 0.45)
MHR = (0.20, 0.14)
PEAK = (0.55, 0.65)
CHECKED = (1.005, 1.001)
SIDE_BY_SIDE = (10.0, 20.0)
RESULTS = Path(__file__).with_name("gpu.json")
NO_DEVICE = "no CUDA device here; `--dry` runs the same on the CPU with a micro model, to see that it runs"
GB = 1e9


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: of the backbone and the pre-training batch.
        precision: of the backbone.
        device: a CUDA device, or the CPU for a dry run.
        warmup: untimed steps.
        repetitions: timed steps.
        matmul: rows and columns of the matrices whose product shows the device's peak.
        runs: adaptations side by side.
        adaptation: the shape of a run's batch.
    """

    shape: Shape
    precision: Precision
    device: torch.device
    warmup: int
    repetitions: int
    matmul: int
    runs: int
    adaptation: Shape


MEASUREMENTS: dict[str, Callable[[Plan, gpu_decoder.Plan], Measured]] = {
    "steps": lambda plan, _: steps(plan),
    "side_by_side": lambda plan, _: side_by_side(plan),
    "decoder": lambda _, plan: gpu_decoder.measure(plan),
}


def full() -> Plan:
    """T5-XL in bf16, 16 rows of 256 and 64 tokens; 16 adaptations of 4 rows of 120 and 10."""
    shape = SHAPES["t5-xl"]
    return Plan(shape, "bf16", torch.device("cuda"), 5, 20, 8192, 16, replace(shape, rows=4, inputs=120, targets=10))


def dry() -> Plan:
    """The same on the CPU, in seconds."""
    shape = SHAPES["micro"]
    return Plan(shape, "fp32", torch.device("cpu"), 1, 2, 64, 3, shape)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, and write each measurement to `gpu.json` and `gpu.md` when it is made, unless it is a dry run."""
    options = _parser().parse_args(arguments)
    quieten()
    if not options.dry and not torch.cuda.is_available():
        shown(NO_DEVICE)
        return 0
    plan, of_decoder = (dry(), gpu_decoder.dry()) if options.dry else (full(), gpu_decoder.full())
    if options.repetitions:
        plan = replace(plan, repetitions=options.repetitions)
        of_decoder = replace(of_decoder, repetitions=options.repetitions)
    where = environment({}) | {"device": device_name(plan.device)}
    for name in options.only or MEASUREMENTS:
        forget(plan.device)
        start = time.perf_counter()
        measured = MEASUREMENTS[name](plan, of_decoder)
        shown(name, measured)
        if not options.dry:
            write(options.out, {name: entry(measured, where, quick=False, seconds=time.perf_counter() - start)})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--dry", action="store_true", help="micro model on the CPU; nothing is written")
    parser.add_argument("--repetitions", type=int, help="timed steps of each, in place of 20")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON of the results, a table beside it")
    return parser


def steps(plan: Plan) -> Measured:
    """A pre-training step of each: milliseconds, share of the matrix peak, peak memory; one model is there at a time."""
    batch = new_batch(plan.shape, shortest=1.0, device=plan.device)
    peak = matmul_rate(plan)
    mine = ours(plan.shape, heads=HEADS, precision=plan.precision, device=plan.device)
    expected = mine.losses(batch)
    adapter = mine.adapter.cpu()
    del mine

    def peft_trainer() -> Trainer:
        theirs = peft_mhr(plan.shape, heads=HEADS, precision=plan.precision, device=plan.device)
        theirs.copy(adapter)
        require_equal("loss of MHR", expected, theirs.loss(batch), tolerance=TOLERANCES[plan.precision])
        return theirs.trainer(always(batch))

    precision, device = plan.precision, plan.device
    makers: dict[str, Callable[[], Trainer]] = {
        "MHR": lambda: ours(plan.shape, heads=HEADS, precision=precision, device=device).trainer(always(batch)),
        "MHR, unchecked": lambda: unchecked(ours(plan.shape, heads=HEADS, precision=precision, device=device), batch),
        "peft MHR": peft_trainer,
        "peft LoRA": lambda: peft_lora(plan.shape, precision=precision, device=device).trainer(always(batch)),
        "frozen limit": lambda: frozen_trainer(new_backbone(plan.shape, PRECISIONS[precision], device), batch),
    }
    times: Times = {}
    work = flops(plan.shape)
    figures = {"matrix peak: TFLOP/s": round(peak / 1e12, 2), "step: TFLOP": round(work / 1e12, 3)}
    for name, make in makers.items():
        forget(device)
        times[name] = _timed(make(), plan)
        figures[f"{name}: peak memory, GB"] = round(peak_memory(device) / GB, 2)
    shares = {name: ratio([work / peak] * len(seconds), seconds) for name, seconds in times.items()}
    rows = [
        Row("MHR step / peft MHR", ratio(times["MHR"], times["peft MHR"]), *MHR),
        Row("MHR step / peft LoRA, eager", ratio(times["MHR"], times["peft LoRA"]), *LORA),
        Row("MHR step / frozen limit", ratio(times["MHR"], times["frozen limit"])),
        Row("MHR step / the same without a check of finite numbers", ratio(times["MHR"], times["MHR, unchecked"]), *CHECKED),
        Row("share of the matrix peak of a MHR step", shares["MHR"], *PEAK, more_is_better=True),
        *(Row(f"share of the matrix peak of a step of {name}", shares[name]) for name in ("peft MHR", "peft LoRA")),
    ]
    if used := figures["peft MHR: peak memory, GB"]:
        part = figures["MHR: peak memory, GB"] / used
        rows.append(Row("peak memory of MHR / peft MHR", Ratio(part, part, part)))
    return Measured(rows, milliseconds(times) | figures)


class Unwatched(Watch):
    """A watch that does not look."""

    def note(self, losses: Tensor, norms: Tensor) -> None:
        """Take no note of a step."""


def unchecked(mine: Ours, batch: Batch) -> Trainer:
    """Steps of the stages' own loop without its check of finite numbers."""
    trainer = mine.trainer(always(batch))
    with patch("mhrctl.training.loop.Watch", Unwatched):
        trainer()  # the loop makes its watch in its first step
    return trainer


def side_by_side(plan: Plan) -> Measured:
    """A step of many adaptations with LoRA and MHR, against peft's one after the other."""
    shape, precision, device = plan.adaptation, plan.precision, plan.device
    together, single = run_batches(shape, plan.runs)
    together, single = together.to(device), [batch.to(device) for batch in single]
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for kind, heads in (("LoRA", None), ("MHR", HEADS)):
        forget(device)
        mine = ours(shape, heads=heads, precision=precision, device=device).adapting(plan.runs)
        if heads is None:
            theirs = peft_lora(shape, precision=precision, device=device)
        else:
            theirs = peft_mhr(shape, heads=heads, tasks=1, precision=precision, device=device)
        theirs.copy(mine.adapter, run=1)
        tolerance = TOLERANCES[precision]
        require_equal(f"loss of {kind}", mine.losses(together)[1:2], theirs.loss(single[1])[None], tolerance=tolerance)
        one = theirs.trainer(cycle(single))
        times = {
            f"{kind}, {plan.runs} side by side": _timed(mine.trainer(always(together)), plan),
            f"{kind}, one by one with peft": _timed(one, plan),
        }
        at_once, other = times.values()
        what = f"{plan.runs} adaptations one by one with peft / side by side ({kind})"
        gate, aim = SIDE_BY_SIDE if heads is None else (None, None)
        rows.append(Row(what, ratio(other, at_once, scale=plan.runs), gate, aim, more_is_better=True))
        figures |= milliseconds(times)
    return Measured(rows, figures)


def flops(shape: Shape) -> float:
    """Floating-point operations of a step with frozen weights, by the formulas above; the batch is all of full length."""
    d, inner, f = shape.d_model, shape.attention_heads * shape.d_kv, shape.d_ff
    read, written = shape.rows * shape.inputs, shape.rows * shape.targets
    encoder = shape.layers * (4 * d * inner + 3 * d * f + 2 * d * inner)
    decoder = shape.layers * (6 * d * inner + 3 * d * f) + d * shape.vocabulary
    pairs = shape.inputs**2 + shape.targets**2 + shape.inputs * shape.targets
    return 2 * 2 * (read * encoder + written * decoder) + 3.5 * 4 * shape.rows * shape.layers * inner * pairs


def matmul_rate(plan: Plan) -> float:
    """Floating-point operations a second of a large product of matrices."""
    a, b = (torch.randn(plan.matmul, plan.matmul, device=plan.device, dtype=PRECISIONS[plan.precision]) for _ in range(2))
    seconds = _timed(lambda: torch.mm(a, b), plan)
    return 2.0 * plan.matmul**3 / sorted(seconds)[len(seconds) // 2]


def device_name(device: torch.device) -> str:
    """What the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (dry run)"


def _timed(step: Trainer, plan: Plan) -> list[float]:
    return timed(step, device=plan.device, warmup=plan.warmup, repetitions=plan.repetitions)


if __name__ == "__main__":
    raise SystemExit(main())
