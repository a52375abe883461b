"""Decoders, and batches of lengths of Super-NaturalInstructions: a model's folder where one is named, or random weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from benchmarks.shapes import TASKS
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.models.decoder_only import PACKS

FOLDER = "MHRCTL_BENCH_DECODER"
"""Environment variable that may name the folder of a decoder, such as Gemma 3 270M."""
SPECIAL = 8
"""Token ids below are left to special tokens."""


@dataclass(frozen=True)
class Decoder:
    """A Gemma 3, whose numbers are random unless a folder has them.

    Attributes:
        width: of the tokens' states.
        layers: of the stack.
        heads: that attend; one key-value head is read by all.
        head: width of each.
        feed: width of the feed-forward layers.
        vocabulary: entries.
        pattern: one layer of so many attends to all before it, the others through the window.
        window: tokens.
    """

    width: int
    layers: int
    heads: int
    head: int
    feed: int
    vocabulary: int
    pattern: int = 6
    window: int = 512


GEMMA = Decoder(640, 18, 4, 256, 2048, 262_144)
"""Gemma 3 270M."""
DECODERS = {
    "gemma": GEMMA,
    "short": replace(GEMMA, layers=2, pattern=2, vocabulary=32_768),
    "micro": Decoder(64, 2, 4, 16, 128, 512, pattern=2, window=16),
}

LENGTHS: tuple[tuple[tuple[int, int], ...], ...] = (
    (
        *((194, 9), (146, 4), (99, 5), (53, 6), (108, 18), (152, 12), (164, 11), (119, 5)),
        *((82, 9), (129, 6), (74, 19), (49, 10), (341, 31), (76, 46), (59, 15), (87, 15)),
    ),
    (
        *((38, 17), (69, 5), (71, 5), (42, 3), (56, 13), (67, 37), (90, 12), (61, 2)),
        *((139, 3), (252, 22), (78, 7), (183, 3), (64, 7), (45, 2), (105, 8), (134, 7)),
    ),
    (
        *((124, 4), (114, 8), (429, 28), (206, 48), (96, 2), (606, 2), (158, 2), (93, 25)),
        *((518, 10), (72, 4), (171, 21), (102, 3), (80, 6), (85, 4), (218, 14), (111, 9)),
    ),
)
"""Tokens of prompts and targets in three random batches of 16.

The prompts are spread evenly over the deciles of the 132 training tasks' median prompts, 36 54 67 76 86 101 115 140 170 226 650
in Gemma's tokens, the targets have 11.8 tokens on average, and 64 % of each padded batch is padding, as it is on average in
batches of 16 that are drawn from the data.
"""


def named_folder() -> Path | None:
    """The folder of a decoder that the environment names, if it is there."""
    name = os.environ.get(FOLDER)
    return Path(name) if name and (Path(name) / "config.json").exists() else None


def new_decoder(decoder: Decoder, dtype: torch.dtype = torch.float32, *, folder: Path | None = None) -> PreTrainedModel:
    """A frozen decoder in evaluation, that packs its sequences.

    Args:
        decoder: its sizes, where no folder has them.
        dtype: of its weights.
        folder: of a model of transformers; None is random weights, the same at every call.
    """
    model: PreTrainedModel
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    else:
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(config_of(decoder)).to(dtype=dtype)  # type: ignore[call-arg]
    return packing(model)


def packing(model: PreTrainedModel) -> PreTrainedModel:
    """The model, frozen, in evaluation, with packed sequences: whose losses are proven right before anything is timed."""
    model.requires_grad_(requires_grad=False)
    setattr(model, PACKS, True)
    model.eval()
    return model


def config_of(decoder: Decoder) -> Gemma3TextConfig:
    """What transformers makes a decoder from."""
    kinds = ("sliding_attention", "full_attention")
    return Gemma3TextConfig(
        vocab_size=decoder.vocabulary,
        hidden_size=decoder.width,
        intermediate_size=decoder.feed,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=1,
        head_dim=decoder.head,
        query_pre_attn_scalar=decoder.head,
        sliding_window=decoder.window,
        layer_types=[kinds[(layer + 1) % decoder.pattern == 0] for layer in range(decoder.layers)],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own with the same frozen weights, which are there once."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def said_of(model: PreTrainedModel, folder: Path | None) -> str:
    """What a model is, in words, without its place."""
    weights = sum(weight.numel() for weight in model.parameters())
    whose = "random numbers" if folder is None else "the numbers of a folder"
    return f"{model.config.model_type} of {weights / 1e6:.0f} M weights, {whose}"


def samples_of(lengths: Sequence[tuple[int, int]], vocabulary: int, *, seed: int = 0) -> list[Sample]:
    """Samples of such lengths with random tokens, each of a task of its own."""
    random = np.random.default_rng(seed)

    def tokens(length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return random.integers(SPECIAL, vocabulary, length)

    return [Sample(task % TASKS, tokens(inputs), tokens(targets)) for task, (inputs, targets) in enumerate(lengths)]


def batch_of(samples: Sequence[Sample]) -> Batch:
    """A batch in which every row has the adapters of its task."""
    return collate(samples, [[sample.task for sample in samples]])


def real_tokens(lengths: Sequence[tuple[int, int]]) -> int:
    """Tokens that must be read, the last of each target being predicted only."""
    return sum(inputs + targets - 1 for inputs, targets in lengths)


def padded_tokens(lengths: Sequence[tuple[int, int]]) -> int:
    """Tokens of a padded batch."""
    return len(lengths) * max(inputs + targets - 1 for inputs, targets in lengths)
