"""A decoder, packed and with an adapter a task, against peft: steps, tokens a second, memory, adaptations, and answers.

Everything is in bf16, in which decoders are trained, but for what says otherwise; losses are proven equal in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from benchmarks.decoder_memory import step_memory
from benchmarks.decoder_peers import causal_lora, causal_mhr, causal_ours, frozen_packed
from benchmarks.decoder_shapes import (
    DECODERS,
    LENGTHS,
    batch_of,
    named_folder,
    new_decoder,
    padded_tokens,
    real_tokens,
    said_of,
    samples_of,
    twin,
)
from benchmarks.peers import Precision, always, cycle, require_equal
from benchmarks.process import give_back_large_blocks
from benchmarks.results import Measured, Row
from benchmarks.timing import Ratio, Steps, Times, interleave, milliseconds, ratio
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.evaluation.prediction import of_runs, own_rows
from mhrctl.models.backbones import PRECISIONS

HEADS = 8
EQUAL_PADDING = (0.90, 0.75)
TOKENS, TOKENS_ALL_LOGITS = (2.2, 3.0), (4.0, 6.0)
FROZEN = (1.15, 1.05)
MEMORY = (0.5, 0.35)
SIDE_BY_SIDE = (2.0, 3.0)
ANSWERS = (1.5, 3.0)
ROWS = 4
"""Of the batch whose losses are proven equal, and that steps of equal padding and memory are measured with."""
ALIKE = 0.03
"""Relative difference of losses in bf16 that counts as equal: peft computes updates in fp32, and padding rounds otherwise."""
LONG = 2
"""Repetitions of what takes half a minute and more."""
GB = 1e9


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        decoder: a name of `DECODERS`, for the model where the environment names no folder.
        named: whether the environment may name one.
        lengths: (tokens of prompt, of target) in batches.
        repetitions: of steps of equal padding, and of those against the frozen model; the long ones are timed once or twice.
        runs: adaptations side by side.
        adapters: that answer in a batch.
        answers: rows of each of them.
        new_tokens: of an answer.
    """

    decoder: str
    named: bool
    lengths: Sequence[Sequence[tuple[int, int]]]
    repetitions: int
    runs: int = 16
    adapters: int = 14
    answers: int = 2
    new_tokens: int = 16


PLANS = {False: Plan("gemma", True, LENGTHS, 3), True: Plan("short", False, LENGTHS[1:2], 1, answers=1, new_tokens=4)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Measure everything on one model, whose frozen weights all share."""
    give_back_large_blocks()
    folder = named_folder() if plan.named else None
    exact = new_decoder(DECODERS[plan.decoder], folder=folder)
    note = said_of(exact, folder)
    require_same(exact, plan)
    parts = [_equal_padding(exact, plan, "fp32")]
    coarse = exact.to(dtype=PRECISIONS["bf16"])  # type: ignore[call-arg]
    parts += [part(coarse, plan) for part in (partial(_equal_padding, precision="bf16"), _tokens, _side_by_side, _answers)]
    del exact, coarse
    parts.append(_memory(plan))
    lengths = [row for batch in plan.lengths for row in batch]
    padding = 1 - sum(map(real_tokens, plan.lengths)) / sum(map(padded_tokens, plan.lengths))
    notes = [note, f"{len(lengths)} rows; {padding:.0%} of the peer's tokens are padding"]
    figures = {name: number for part in parts for name, number in part.figures.items()}
    return Measured([row for part in parts for row in part.rows], figures, notes)


def require_same(model: PreTrainedModel, plan: Plan) -> None:
    """Check that all losses and answers are the same, packed, padded and of peft, in fp32."""
    batch = batch_of(_samples(model, plan.lengths[0][:ROWS]))
    for heads in (1, HEADS):
        mine, theirs = causal_ours(twin(model), heads=heads, rows=ROWS), causal_mhr(twin(model), heads=heads)
        theirs.copy(mine.adapter)
        require_equal(f"packed loss of MHR with {heads} heads", mine.losses(batch), theirs.loss(batch))
        padded = causal_ours(twin(model), heads=heads, rows=ROWS, packing=False)
        require_equal(f"padded loss of MHR with {heads} heads", padded.losses(batch), theirs.loss(batch))
    lora = causal_ours(twin(model), heads=None, rows=ROWS)
    for all_logits in (False, True):
        theirs = causal_lora(twin(model), all_logits=all_logits)
        theirs.copy(lora.adapter)
        require_equal("loss of LoRA", lora.losses(batch), theirs.loss(batch))
    together, single = _run_batches(model, plan.lengths, 2)
    mine, theirs = lora.adapting(2), causal_lora(twin(model))
    losses = []
    for run, of_run in enumerate(single):
        theirs.copy(mine.adapter, run)
        losses.append(theirs.loss(of_run))
    require_equal("losses of LoRA side by side", mine.losses(together), torch.stack(losses))


def _equal_padding(model: PreTrainedModel, plan: Plan, precision: Precision) -> Measured:
    """A step of MHR against peft's, the same padding and the same logits for both."""
    batch = batch_of(_samples(model, plan.lengths[0][:ROWS]))
    steps: dict[str, Callable[[], object]] = {}
    for heads in (1, HEADS):
        mine = causal_ours(twin(model), heads=heads, rows=ROWS, packing=False, precision=precision)
        theirs = causal_mhr(twin(model), heads=heads)
        theirs.copy(mine.adapter)
        require_equal(f"loss of MHR in {precision}", mine.losses(batch), theirs.loss(batch), tolerance=ALIKE)
        steps[f"MHR, heads {heads}, padded, {precision}"] = mine.trainer(always(batch))
        steps[f"peft MHR, heads {heads}, {precision}"] = theirs.trainer(always(batch))
    times = interleave(steps, repetitions=plan.repetitions)
    rows = [
        Row(
            f"MHR step / peft MHR, equal padding, target logits (heads {heads}, {precision})",
            ratio(times[f"MHR, heads {heads}, padded, {precision}"], times[f"peft MHR, heads {heads}, {precision}"]),
            *EQUAL_PADDING,
        )
        for heads in (1, HEADS)
    ]
    return Measured(rows, milliseconds(times))


def _tokens(model: PreTrainedModel, plan: Plan) -> Measured:
    """Real tokens a second in random batches, and a step against the frozen model, each batch in turn."""
    mine = causal_ours(twin(model), heads=HEADS, rows=len(plan.lengths[0]), precision="bf16")
    theirs, all_logits = (causal_lora(twin(model), all_logits=every) for every in (False, True))
    times: Times = {"MHR": [], "peft LoRA": [], "peft LoRA, all logits": []}
    against: Times = {"MHR": [], "frozen, packed": []}
    for lengths in plan.lengths:
        samples = _samples(model, lengths)
        batch = batch_of(samples)
        # Padding makes all rows of a batch alike, and of a whole one a machine may not hold what the peers do: its longest rows
        # stand for all of them.
        longest = sorted(samples, key=lambda sample: len(sample.input_ids) + len(sample.target_ids))
        of_ours = mine.trainer(always(batch))
        steps = {
            "MHR": of_ours,
            "peft LoRA": theirs.trainer(always(batch_of(longest[-ROWS:]))),
            "peft LoRA, all logits": all_logits.trainer(always(batch_of(longest[-1:]))),
        }
        of_batch = interleave(steps, repetitions=1, warmup=int(lengths is plan.lengths[0]))
        limit = interleave(
            {"MHR": of_ours, "frozen, packed": frozen_packed(twin(model), batch)}, repetitions=plan.repetitions, warmup=0
        )
        for name, timed in (("peft LoRA", ROWS), ("peft LoRA, all logits", 1)):
            of_batch[name] = [len(samples) / timed * seconds for seconds in of_batch[name]]
        for name, seconds in of_batch.items():
            times[name] += seconds
        against["MHR"] += limit["MHR"]
        against["frozen, packed"] += limit["frozen, packed"]
    batches = f"batches of {len(plan.lengths[0])}, lengths of Super-NaturalInstructions"
    rows = [
        Row(
            f"real tokens a second of MHR / {peer}, {batches} (heads {HEADS}, bf16)",
            ratio(times[name], times["MHR"]),
            *targets,
            more_is_better=True,
        )
        for name, peer, targets in (
            ("peft LoRA", "peft LoRA, padded, target logits", TOKENS),
            ("peft LoRA, all logits", "peft LoRA, padded, all logits", TOKENS_ALL_LOGITS),
        )
    ]
    what = f"MHR step, {len(plan.lengths[0])} tasks in a batch / frozen packed forward and backward (heads {HEADS}, bf16)"
    rows.append(Row(what, ratio(against["MHR"], against["frozen, packed"]), *FROZEN))
    named = {f"{name}, a batch of {len(plan.lengths[0])}": seconds for name, seconds in (against | times).items()}
    repeated = sum(map(real_tokens, plan.lengths)) * len(times["MHR"]) / len(plan.lengths)
    rates = {f"{name}: real tokens a second": round(repeated / sum(seconds), 1) for name, seconds in times.items()}
    return Measured(rows, milliseconds(named) | rates)


def _side_by_side(model: PreTrainedModel, plan: Plan) -> Measured:
    """Adaptations with LoRA to many tasks in one batch, against peft's one after the other."""
    together, single = _run_batches(model, plan.lengths, plan.runs)
    mine = causal_ours(twin(model), heads=None, rows=len(single[0].choices), precision="bf16").adapting(plan.runs)
    theirs = causal_lora(twin(model))
    theirs.copy(mine.adapter, 1)
    require_equal("loss of LoRA in bf16", mine.losses(together)[1], theirs.loss(single[1]), tolerance=ALIKE)
    step = theirs.trainer(cycle(single))
    at_once, other = f"{plan.runs} adaptations side by side", f"{plan.runs} adaptations one by one with peft"
    steps = {at_once: mine.trainer(always(together)), other: lambda: [step() for _ in range(plan.runs)]}
    times = interleave(steps, repetitions=LONG, warmup=0)
    what = f"{other}, target logits / side by side (LoRA, {len(single[0].choices)} rows each, bf16)"
    return Measured([Row(what, ratio(times[other], times[at_once]), *SIDE_BY_SIDE, more_is_better=True)], milliseconds(times))


def _answers(model: PreTrainedModel, plan: Plan) -> Measured:
    """Answers of many adapters in one batch, against one adapter after the other, with peft and here."""
    runs = plan.adapters
    together, single = _run_batches(model, plan.lengths, runs, rows=plan.answers)
    mine = causal_ours(twin(model), heads=None, rows=plan.answers, precision="bf16").adapting(runs)
    mine.model.eval()
    theirs = causal_lora(twin(model))
    theirs.model.eval()
    parts = [of_runs(mine.model, [run]) for run in range(runs)]
    options = {"do_sample": False, "min_new_tokens": plan.new_tokens, "max_new_tokens": plan.new_tokens}
    steps: Steps = {
        "answers together": lambda: mine.model.generate(together.task_ids, together.inputs, **options),
        "answers one by one": lambda: [
            part.generate(batch.task_ids, batch.inputs, **options) for part, batch in zip(parts, single, strict=True)
        ],
        "answers one by one with peft": lambda: [theirs.generate(batch.inputs, **options) for batch in single],
    }
    times = interleave(steps, repetitions=LONG, warmup=0)
    what = f"answers of {{}} / of {runs} adapters in a batch ({plan.answers} rows each, {plan.new_tokens} tokens, bf16)"
    at_once = times["answers together"]
    rows = [
        Row(what.format("one adapter after another with peft"), ratio(times["answers one by one with peft"], at_once), *ANSWERS,
            more_is_better=True),
        Row(what.format("one adapter after another"), ratio(times["answers one by one"], at_once), more_is_better=True),
    ]  # fmt: skip
    return Measured(rows, milliseconds(times))


def _memory(plan: Plan) -> Measured:
    """The most that a step holds, frozen weights included, each in a process of its own."""
    rows: list[Row] = []
    figures: dict[str, float] = {}
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    for precision in precisions:
        peak = {
            name: step_memory(name, decoder=plan.decoder, named=plan.named, lengths=plan.lengths[0][:ROWS], precision=precision)
            for name in ("MHR", "peft LoRA", "peft LoRA, all logits")
        }
        figures |= {f"{name}, {precision}: peak memory of a step, GB": round(used / GB, 3) for name, used in peak.items()}
        for name, targets in (("peft LoRA, all logits", MEMORY), ("peft LoRA", (None, None))):
            part = peak["MHR"] / peak[name]
            what = f"peak memory of a step of MHR / {name} ({ROWS} rows, heads {HEADS}, {precision})"
            rows.append(Row(what, Ratio(part, part, part), *targets))
    return Measured(rows, figures)


def _samples(model: PreTrainedModel, lengths: Sequence[tuple[int, int]]) -> list[Sample]:
    return samples_of(lengths, model.config.vocab_size)


def _run_batches(
    model: PreTrainedModel, lengths: Sequence[Sequence[tuple[int, int]]], runs: int, *, rows: int | None = None
) -> tuple[Batch, list[Batch]]:
    """The batch of all runs, and those of each: all rows that there are, or so many a run."""
    every = [row for batch in lengths for row in batch]
    each = len(every) // runs if rows is None else rows
    samples = _samples(model, every)[: runs * each]
    of_runs = [samples[run * each : (run + 1) * each] for run in range(runs)]
    return collate(samples, own_rows(runs)), [collate(of_run, own_rows(1)) for of_run in of_runs]
