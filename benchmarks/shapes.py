"""Sizes of T5 and of its batches: random weights and random tokens, which cost what real ones do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import T5ForConditionalGeneration

from mhrctl.config.sections import ScratchParams
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.stages.backbone import scratch_config

PAD = 0
END = 1
TASKS = 64
"""Training tasks, the rows of the routing."""


@dataclass(frozen=True)
class Shape:
    """A T5 with gated GELU, and its batches.

    Attributes:
        d_model: width.
        d_kv: width of an attention head.
        attention_heads: of each attention.
        d_ff: width of the feed-forward layers.
        layers: encoder layers, and as many decoder layers.
        vocabulary: entries.
        rows: of a batch.
        inputs: tokens of the longest input.
        targets: tokens of the longest target.
    """

    d_model: int
    d_kv: int
    attention_heads: int
    d_ff: int
    layers: int
    vocabulary: int
    rows: int
    inputs: int
    targets: int


SHAPES = {
    "micro": Shape(64, 16, 4, 128, 2, 512, 4, 32, 4),
    "tiny": Shape(128, 32, 4, 256, 3, 1024, 16, 64, 16),
    "small": Shape(256, 64, 4, 512, 4, 4096, 16, 128, 16),
    "medium": Shape(512, 64, 6, 1024, 8, 8192, 4, 256, 32),
    "t5-xl": Shape(2048, 64, 32, 5120, 24, 32128, 16, 256, 64),
}


def new_backbone(
    shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> T5ForConditionalGeneration:
    """A frozen T5 with random weights, the same at every call, without dropout."""
    params = ScratchParams(
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        attention_heads=shape.attention_heads,
        d_ff=shape.d_ff,
        layers=shape.layers,
    )
    torch.manual_seed(0)
    with torch.device(device or "cpu"):
        model = T5ForConditionalGeneration(scratch_config(params, shape.vocabulary))
    model.requires_grad_(requires_grad=False)
    return model.to(dtype=dtype)  # type: ignore[no-any-return, call-arg]


def new_samples(shape: Shape, count: int, *, seed: int = 0, choices: int = 0, shortest: float = 0.5) -> list[Sample]:
    """Random samples of uniform lengths; the first is the longest.

    Args:
        shape: gives lengths and vocabulary.
        count: samples.
        seed: of lengths and tokens.
        choices: answer choices of each; the target is the first.
        shortest: least part of the longest length.
    """
    random = np.random.default_rng(seed)

    def tokens(longest: int, number: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        length = longest if number == 0 else random.integers(max(2, int(shortest * longest)), longest + 1)
        return np.append(random.integers(END + 1, shape.vocabulary, length - 1), END)

    samples = []
    for number in range(count):
        answers = [tokens(shape.targets, number) for _ in range(max(1, choices))]
        offered = tuple(answers) if choices else ()
        samples.append(Sample(int(random.integers(TASKS)), tokens(shape.inputs, number), answers[0], offered))
    return samples


def new_batch(shape: Shape, *, shortest: float = 0.5, device: torch.device | None = None) -> Batch:
    """A padded batch, each row of a task of its own; arguments as in `new_samples`."""
    samples = new_samples(shape, shape.rows, shortest=shortest)
    return collate(samples, [[sample.task for sample in samples]]).to(device or torch.device("cpu"))
