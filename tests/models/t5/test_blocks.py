"""Whole blocks against finite differences and the layers of transformers, run as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from mhrctl.models.t5.blocks import Attention, FeedForward, Layer, Sizes, run_block
from tests.models.made import not_compiled
from tests.models.t5.test_model import backbone

SIZES = Sizes(heads=3, eps=1e-6, rows=2)


@pytest.fixture(autouse=True)
def as_they_are() -> Iterator[None]:
    """What torch.compile makes of a block is in `test_model`; it takes long."""
    with not_compiled():
        yield


def layers_of(block: Any, updates: list[Tensor]) -> tuple[Attention, Attention | None, FeedForward]:
    """The layers of a block of transformers; those that come first take the updates, A and B in turn."""
    given = iter(zip(updates[::2], updates[1::2], strict=True))

    def layer(module: Any) -> Layer:
        return module.weight.detach(), *next(given, (None, None))

    def attention(number: int, kind: str) -> Attention:
        of = getattr(block.layer[number], kind)
        return Attention(
            block.layer[number].layer_norm.weight.detach(), layer(of.q), layer(of.k), layer(of.v), layer(of.o), None
        )

    itself = attention(0, "SelfAttention")
    cross = attention(1, "EncDecAttention") if len(block.layer) > 2 else None
    dense, norm = block.layer[-1].DenseReluDense, block.layer[-1].layer_norm.weight.detach()
    return itself, cross, FeedForward(norm, layer(dense.wi_0), layer(dense.wi_1), layer(dense.wo))


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_block_is_transformers(stack: str) -> None:
    model = backbone()
    block = model.get_submodule(stack).block[1]
    x, encoded = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    options = {} if stack == "encoder" else {"encoder_hidden_states": encoded}
    bias = torch.randn(1, 3, 5, 5)  # of positions; in a decoder, where no token sees later ones, too
    mask = bias if stack == "encoder" else bias.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -1e9)
    expected = block(x, position_bias=mask, encoder_decoder_position_bias=torch.zeros(1, 1, 5, 7), **options)
    states = expected[0] if isinstance(expected, tuple) else expected
    itself, cross, feed_forward = layers_of(block, [])
    inputs = None if stack == "encoder" else encoded.flatten(0, 1)
    itself = itself._replace(mask=mask)
    actual = run_block(x.flatten(0, 1), inputs, itself, cross, feed_forward, SIZES)
    torch.testing.assert_close(actual.view_as(x), states.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("adapted", [0, 2, 11])
def test_gradients(rank: int, adapted: int) -> None:
    """In fp64, of a decoder's block whose first layers, or all, are adapted by two groups."""
    block = backbone(size=12).double().decoder.block[0]
    itself, cross, feed = layers_of(block, [])
    assert cross is not None
    every = [*itself[1:5], *cross[1:5], *feed[1:]]
    widths = [(layer[0].shape[1], layer[0].shape[0]) for layer in every][:adapted]
    generator = torch.Generator().manual_seed(0)

    def made(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=generator).requires_grad_()

    updates = [made(2, rank, width) for pair in widths for width in pair]

    def run(x: Tensor, encoded: Tensor, *given: Tensor) -> Tensor:
        first, second, last = layers_of(block, list(given))
        return run_block(x, encoded, first, second, last, SIZES)

    assert gradcheck(run, [made(4, 12), made(6, 12), *updates], fast_mode=True)
