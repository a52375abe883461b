"""Rows of tokens, and logits of targets, as tests of models ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from mhrctl.data.batches import Ragged
from mhrctl.models.t5.pointwise import EAGER


def ragged(ids: Tensor, counted: Tensor | None = None) -> Ragged:
    """The rows of a rectangle, [rows, length]: whole, or only what `counted` of the same shape says, which begins each row."""
    if counted is None:
        return Ragged(ids.flatten(), (ids.shape[1],) * len(ids))
    return Ragged(ids[counted.bool()], tuple(counted.bool().sum(1).tolist()))


def logits_of(model: nn.Module, task_ids: Tensor | None, ids: Tensor, targets: Tensor) -> Tensor:
    """What an adapted model gives for whole rows, [rows * c, target length, vocabulary]."""
    logits: Tensor = model(task_ids, ragged(ids), ragged(targets), with_logits=True)
    return logits


@contextmanager
def not_compiled() -> Iterator[None]:
    """Let what would be compiled run as it is meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_options: function)
        patch.setattr("mhrctl.models.t5.regions._leave_open", lambda _tensor: None)
        patch.setattr("mhrctl.models.t5.regions._REGIONS", {})
        patch.setattr("mhrctl.models.t5.blocks._BLOCKS", {})
        patch.setattr("mhrctl.models.t5.pointwise.compiled", lambda: EAGER)
        yield
