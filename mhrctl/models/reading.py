"""What adapted layers read can be looked at while transformers' forward runs: the mean over the tokens of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Means = dict[str, Tensor]
"""{layer: [rows, d_in]}, in fp32."""
Averaging = Callable[[str, Tensor], Tensor]
"""Gives, for a layer's name and what it reads, the matrix that takes the mean over the tokens of each row, [rows, tokens]."""


def averaging(owners: Tensor, rows: int) -> Tensor:
    """Return the matrix that takes the mean over the tokens of each row.

    Args:
        owners: [tokens], the row of each; -1 is of none.
        rows: how many there are.

    Returns:
        [rows, tokens]; of a row without tokens all zero.
    """
    counted = (owners == torch.arange(rows, device=owners.device)[:, None]).float()
    return counted / counted.sum(1, keepdim=True).clamp(min=1)


@contextmanager
def means_of(model: nn.Module, layers: Iterable[str], averaging_of: Averaging) -> Iterator[Means]:
    """Take the means of what layers read, with their gradients, until the context ends.

    Args:
        model: whose modules are called; a forward of our own, which calls none, is not seen.
        layers: names of some.
        averaging_of: see `Averaging`.
    """
    means: Means = {}

    def take(name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        (x,) = inputs
        tokens, mean = x.flatten(0, -2), averaging_of(name, x)
        if len(tokens) == mean.shape[1]:  # an expert reads some of them, and nobody says which
            means[name] = mean.to(x.device) @ tokens.float()

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(partial(take, name)))
        yield means
