"""Pre-training in real tokens a second on lengths of Super-NaturalInstructions, against peft's MHR with random batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Trainer, ours, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import END, SHAPES, TASKS
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.artifacts.names import TRAINING_EXAMPLES
from mhrctl.config.tasks import PrepareParams
from mhrctl.data.batches import Batch, MixedBatches, Order
from mhrctl.data.examples import Examples, Sample
from mhrctl.stages.prepare import prepare

TARGETS = (2.5, 3.3)
HEADS = 8
DATA = Path(__file__).parents[2] / "shared" / "data"
"""Where a clone of Super-NaturalInstructions may lie."""
FOLDER = "natural-instructions"
Lengths = list[tuple[int, int, int]]
"""(input tokens, target tokens, task) of examples."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`, for the backbone.
        batches: in a repetition.
        repetitions: of all batches.
        rows: examples of a batch.
        longest: input and target lengths are cut here, beside the recipe's 1024 and 128.
        data: folder that may hold the data; None draws lengths.
    """

    shape: str
    batches: int
    repetitions: int
    rows: int = 16
    longest: tuple[int, int] = (1024, 128)
    data: Path | None = DATA


PLANS = {False: Plan("small", 4, 7), True: Plan("tiny", 2, 3, data=None)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time the same batches in the same order, from their samples to the optimizer's step."""
    shape = SHAPES[plan.shape]
    lengths, note = real_lengths(plan.data) if plan.data and (plan.data / FOLDER).exists() else made_lengths()
    samples = with_tokens(lengths, shape.vocabulary, plan.longest)
    batches = MixedBatches(samples, Order(len(samples), seed=0), plan.rows)
    mine = ours(shape, heads=HEADS)
    theirs = peft_mhr(shape, heads=HEADS)
    theirs.copy(mine.adapter)
    for micro in range(plan.batches):
        batch = batches(micro)
        require_equal(f"loss of batch {micro}", mine.losses(batch), theirs.loss(batch))
    steps = {
        name: _all(trainer, plan.batches)
        for name, trainer in (
            ("MHR", mine.trainer(_first(batches, plan.batches))),
            ("peft MHR", theirs.trainer(_first(batches, plan.batches))),
        )
    }
    times = interleave(steps, repetitions=plan.repetitions)
    tokens = sum(batches.tokens(micro) for micro in range(plan.batches))
    padded = sum(batch.inputs.mask().numel() + batch.labels.numel() for batch in map(batches, range(plan.batches)))
    medians = {f"{name}, {plan.batches} steps": number for name, number in milliseconds(times).items()}
    rates = {f"{name}: real tokens a second": round(tokens / np.median(seconds)) for name, seconds in times.items()}
    what = f"real tokens a second of MHR / peft MHR, random batches of {plan.rows} (heads {HEADS}, d_model {shape.d_model})"
    row = Row(what, ratio(times["peft MHR"], times["MHR"]), *TARGETS, more_is_better=True)
    share = f"{1 - tokens / padded:.0%} of the peer's tokens are padding"
    return Measured([row], medians | rates, [f"{note}; {share}"])


def real_lengths(data: Path) -> tuple[Lengths, str]:
    """Lengths of training examples, in the prompts and with the limits of the paper's experiments, and where they are from."""
    params = PrepareParams(source="superni", path=FOLDER, tokenizer="bpe", vocab_size=16_000, examples=40)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "prepared"
        prepare(params, root=data, out=out, scratch=Path(folder) / "scratch")
        examples = Examples.read(out / TRAINING_EXAMPLES).of(split="train")
        lengths = [(len(sample.input_ids), len(sample.target_ids), sample.task) for sample in examples.all_references()]
        tasks = len(examples.tasks)
    return lengths, f"lengths of {len(lengths)} training examples of {tasks} tasks of Super-NaturalInstructions, BPE of 16,000"


def made_lengths(count: int = 8192) -> tuple[Lengths, str]:
    """Lengths drawn where there is no data, and how."""
    random = np.random.default_rng(0)
    inputs = random.lognormal(np.log(90), 0.8, count).clip(8, 512).round().astype(int)
    targets = random.lognormal(np.log(6), 1.0, count).clip(2, 64).round().astype(int)
    note = "made lengths, drawn from lognormals, inputs of median 90 and sigma 0.8, targets of median 6 and sigma 1.0"
    return list(zip(inputs.tolist(), targets.tolist(), range(count), strict=True)), note


def with_tokens(lengths: Lengths, vocabulary: int, longest: tuple[int, int]) -> list[Sample]:
    """Samples of given lengths with random tokens."""
    random = np.random.default_rng(1)

    def tokens(length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.append(random.integers(END + 1, vocabulary, length - 1), END)

    return [
        Sample(task % TASKS, tokens(min(inputs, longest[0])), tokens(min(targets, longest[1])))
        for inputs, targets, task in lengths
    ]


def _first(batches: MixedBatches, number: int) -> Callable[[int], Batch]:
    return lambda micro: batches(micro % number)


def _all(trainer: Trainer, steps: int) -> Trainer:
    return lambda: [trainer() for _ in range(steps)]
