"""The backbone stage tests a causal model: whether its sequences may be packed into one row, or must be padded.

Some families compute wrong losses of packed sequences, silently (positions that are counted through the row, states that run
across sequences, attention functions that know nothing of the sequences' ends). No list of names decides, but a comparison.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from mhrctl.data.batches import Ragged
from mhrctl.data.loading import reason
from mhrctl.errors import DataError
from mhrctl.models.backbones import vocabulary
from mhrctl.models.decoder_only import PACKS, DecoderOnly
from mhrctl.models.packed_attention import NAME, packed_attention
from mhrctl.models.speed import Speed

TOLERANCE = 1e-4
"""The largest difference of logits, as a part of the largest logit, that counts as rounding.

Other orders of summing give differences of 1e-6 to 3e-6 in fp32, some more in deep models; what is wrong gives 8e-3 and more.
"""
SIZES = ((3, 4), (17, 2), (1, 6), (24, 5), (8, 3), (11, 8))
"""Tokens of each input and of its target."""
SHORTEST = 8
"""Positions that a model must have for a test."""


def why_padded(model: PreTrainedModel, *, where: str) -> str | None:
    """Compare packed and padded sequences with each alone, on random tokens; whether the model packs stays unsaid.

    Args:
        model: a causal model, without adapters.
        where: names it in errors.

    Returns:
        Why sequences must be padded, in words; None if they may be packed.

    Raises:
        DataError: if tokens change what stands before them, or padding changes anything: then no batch is right.
    """
    trained = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return _compare(model, where)
    finally:
        model.train(trained)
        if hasattr(model, PACKS):
            delattr(model, PACKS)


def _compare(model: PreTrainedModel, where: str) -> str | None:
    inputs, targets = _sequences(model)
    kind = f"{where}: a {model.config.model_type} model"
    try:
        choices = [each for target in targets for each in (target, target[::-1])]
        both = _logits_alone(model, [each for each in inputs for _ in range(2)], choices)
        alone = both[::2]
        halves = [target[: (len(target) + 1) // 2] for target in targets]
        first = [each[: len(half)] for each, half in zip(alone, halves, strict=True)]
        before = difference(_logits_alone(model, inputs, halves), first)
        padded = difference(_logits_together(model, inputs, targets, packs=False), alone)
        losses = _loss_difference(model, inputs, choices, both, packs=False)
    except Exception as error:
        raise DataError(f"{kind} that cannot be run on rows of tokens: {reason(error)}") from error
    if not before <= TOLERANCE:
        raise DataError(
            f"{kind} that reads what follows a token, whose logits differ by {before:.1e} of the largest: it has no causal"
            " attention, and writes no text; name a causal language model or an encoder-decoder"
        )
    if not padded <= TOLERANCE:
        raise DataError(
            f"{kind} whose logits differ by {padded:.1e} of the largest where a sequence is padded: no batch of it is right;"
            " name another"
        )
    if not losses <= TOLERANCE:
        raise DataError(
            f"{kind} whose losses, made of some tokens' states at a time, differ by {losses:.1e} of the largest: no batch of it"
            " is right; name another"
        )
    try:
        with _noting_windows() as windows:
            packed = difference(_logits_together(model, inputs, targets, packs=True), alone)
        shared = _loss_difference(model, inputs, choices, both, packs=True)
    except Exception as error:  # noqa: BLE001 - whatever keeps a family from it
        return f"it cannot be run packed: {reason(error)}"
    if not packed <= TOLERANCE:
        return f"packed logits differ by {packed:.1e} of the largest"
    if not shared <= TOLERANCE:
        return f"losses of choices that share their input differ by {shared:.1e} of the largest"
    return _unseen(model.config, windows)


@contextmanager
def _noting_windows() -> Iterator[list[int]]:
    """Note what windows the layers of a packed model ask for meanwhile."""
    windows: list[int] = []

    def noting(*given: Any, sliding_window: int | None = None, **others: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        if sliding_window:
            windows.append(sliding_window)
        return packed_attention(*given, sliding_window=sliding_window, **others)

    AttentionInterface.register(NAME, noting)
    try:
        yield windows
    finally:
        AttentionInterface.register(NAME, packed_attention)


def _unseen(config: PretrainedConfig, windows: list[int]) -> str | None:
    """Why packing would be wrong for sequences longer than those of the test, which a window of thousands of tokens holds."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "attention_chunk_size", None):
        return "its layers attend within chunks, which packed attention has not"
    layers = getattr(text, "layer_types", None)
    expected = layers.count("sliding_attention") if layers else 1
    if getattr(text, "sliding_window", None) and len(windows) < expected:
        return "its layers look back through a window that they do not hand on to packed attention"
    return None


def difference(logits: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest difference of logits of several sequences, as a part of the largest right one; NaN if any is.

    Args:
        logits: of each sequence, [tokens, vocabulary].
        right: likewise.
    """
    pairs = zip(logits, right, strict=True)
    apart = torch.stack([(one - other).abs().max() for one, other in pairs]).max()
    return float(apart / torch.cat(right).abs().max())


def _sequences(model: PreTrainedModel) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Random inputs and targets of unequal lengths, the same for each model of a size, without its padding."""
    rng, known = random.Random(0), vocabulary(model)
    longest = max(getattr(model.config, "max_position_embeddings", None) or 10**6, SHORTEST)
    special = {model.config.pad_token_id} if known > 1 else set()

    def draw(size: int) -> np.ndarray[Any, Any]:
        tokens: list[int] = []
        while len(tokens) < size:
            token = rng.randrange(known)
            tokens += [] if token in special else [token]
        return np.array(tokens)

    sizes = [(max(1, min(before, longest - after)), after) for before, after in SIZES if after <= longest]
    return [draw(before) for before, _ in sizes], [draw(after) for _, after in sizes]


def _logits_alone(
    model: PreTrainedModel, inputs: list[np.ndarray[Any, Any]], targets: list[np.ndarray[Any, Any]]
) -> list[Tensor]:
    """The logits of each sequence by itself."""
    rows = zip(inputs, targets, strict=True)
    return [_logits_together(model, [one], [target], packs=False)[0] for one, target in rows]


def _logits_together(
    model: PreTrainedModel, inputs: list[np.ndarray[Any, Any]], targets: list[np.ndarray[Any, Any]], *, packs: bool
) -> list[Tensor]:
    """The logits of sequences in one batch, as training makes them."""
    setattr(model, PACKS, packs)
    logits = DecoderOnly(model, Speed()).logits({}, Ragged.of(inputs), Ragged.of(targets))
    return [each[: len(target)].float() for each, target in zip(logits, targets, strict=True)]


def _loss_difference(
    model: PreTrainedModel,
    inputs: list[np.ndarray[Any, Any]],
    choices: list[np.ndarray[Any, Any]],
    alone: list[Tensor],
    *,
    packs: bool,
) -> float:
    """The largest difference of losses of choices, of which each input has several, from those of their logits alone."""
    setattr(model, PACKS, packs)
    losses = DecoderOnly(model, Speed()).token_losses({}, Ragged.of(inputs), Ragged.of(choices))
    labels = [torch.from_numpy(choice.astype(np.int64)) for choice in choices]
    right = [F.cross_entropy(one, gold, reduction="none") for one, gold in zip(alone, labels, strict=True)]
    return difference([each[: len(gold)] for each, gold in zip(losses, labels, strict=True)], right)
