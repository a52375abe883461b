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
Shares = Callable[[str, Tensor], Tensor]
"""Gives, for a layer's name and what it reads, how much each token counts in the mean of each row, [rows, tokens]."""


def shares(owners: Tensor, rows: int) -> Tensor:
    """Let the tokens of a row count alike.

    Args:
        owners: [tokens], the row of each; -1 is of none.
        rows: how many there are.

    Returns:
        [rows, tokens]; of a row without tokens all zero.
    """
    counted = (owners == torch.arange(rows, device=owners.device)[:, None]).float()
    return counted / counted.sum(1, keepdim=True).clamp(min=1)


@contextmanager
def means_of(model: nn.Module, layers: Iterable[str], shares_of: Shares) -> Iterator[Means]:
    """Take the means of what layers read, with their gradients, until the context ends.

    Args:
        model: whose modules are called; a forward of our own, which calls none, is not seen.
        layers: names of some.
        shares_of: see `Shares`.
    """
    means: Means = {}

    def take(name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        (x,) = inputs
        tokens, of_tokens = x.flatten(0, -2), shares_of(name, x)
        if len(tokens) == of_tokens.shape[1]:  # an expert reads some of them, and nobody says which
            means[name] = of_tokens.to(x.device) @ tokens.float()

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(partial(take, name)))
        yield means
