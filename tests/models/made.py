"""Rows of tokens, and logits of targets, as tests of models ask for them."""

from __future__ import annotations

from torch import Tensor, nn

from mhrctl.data.batches import Ragged


def ragged(ids: Tensor, counted: Tensor | None = None) -> Ragged:
    """The rows of a rectangle, [rows, length]: whole, or only what `counted` of the same shape says, which begins each row."""
    if counted is None:
        return Ragged(ids.flatten(), (ids.shape[1],) * len(ids))
    return Ragged(ids[counted.bool()], tuple(counted.bool().sum(1).tolist()))


def logits_of(model: nn.Module, task_ids: Tensor | None, ids: Tensor, targets: Tensor) -> Tensor:
    """What an adapted model gives for whole rows, [rows * c, target length, vocabulary]."""
    logits: Tensor = model(task_ids, ragged(ids), ragged(targets), with_logits=True)
    return logits
