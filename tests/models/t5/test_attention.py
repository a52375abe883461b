"""Attention over packed rows against plain attention within each row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mhrctl.models.t5.attention import attend, cross_attention_masks, self_attention_masks
from mhrctl.models.t5.packing import WASTE, Packing

HEADS, INNER = 4, 16
INPUTS, TARGETS = [5, 2, 5, 3], [3, 1, 4, 2]
INNERS = [1, 2**15, WASTE, 2**30]
"""From one block with padding to one block a length."""


def packing(inner: int, *, packed: bool = True) -> Packing:
    return Packing.of(INPUTS, TARGETS, widths=(6, 4), inner=inner, packed=packed, device=torch.device("cpu"))


def attention(model: T5ForConditionalGeneration, stack: str) -> Any:
    return getattr(model, stack).block[0].layer[0].SelfAttention


def row_bias(model: T5ForConditionalGeneration, stack: str, length: int) -> Tensor:
    """The bias of a row in transformers, with the future hidden in a decoder: [1, heads, length, length]."""
    bias: Tensor = attention(model, stack).compute_bias(length, length).detach()
    if stack == "decoder":
        bias = bias.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
    return bias


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float) -> Tensor:
    """softmax(q k + bias) v by head, without a scale."""
    q, k, v = (x.view(len(x), HEADS, -1).transpose(0, 1) for x in (q, k, v))
    return (((q @ k.mT) + bias).softmax(-1) @ v).squeeze(0).transpose(0, 1).reshape(q.shape[1], -1)


def tokens(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, INNER, generator=generator).requires_grad_() for size in sizes]


@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize(("stack", "sizes"), [("encoder", INPUTS), ("decoder", TARGETS)])
def test_self_attention_stays_within_a_row(
    tiny_t5: T5ForConditionalGeneration, stack: str, sizes: list[int], inner: int
) -> None:
    batch = packing(inner)
    plan = batch.encoder if stack == "encoder" else batch.decoder
    masks = self_attention_masks(attention(tiny_t5, stack), plan, causal=stack == "decoder")
    q, k, v = tokens(*[sum(sizes)] * 3)
    mixed = attend(q, k, v, plan, masks, heads=HEADS, dropout=0.0)
    rows = zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    expected = torch.cat([plain(*row, row_bias(tiny_t5, stack, size)) for row, size in zip(rows, sizes, strict=True)])
    torch.testing.assert_close(mixed, expected)
    weight = torch.arange(mixed.numel()).view_as(mixed) % 7.0
    gradients = [torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (mixed, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("inner", INNERS)
def test_cross_attention_sees_the_tokens_of_its_input(inner: int) -> None:
    batch = packing(inner)
    q, k, v = tokens(sum(TARGETS), sum(INPUTS), sum(INPUTS))
    mixed = attend(q, k, v, batch.cross, cross_attention_masks(batch.cross, torch.float32), heads=HEADS, dropout=0.0)
    rows = zip(q.split(TARGETS), k.split(INPUTS), v.split(INPUTS), strict=True)
    expected = torch.cat([plain(*row, 0.0) for row in rows])
    torch.testing.assert_close(mixed, expected)
    gradients = [torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (mixed, expected)]
    torch.testing.assert_close(*gradients)


def test_padding_that_is_kept_is_not_seen(tiny_t5: T5ForConditionalGeneration) -> None:
    batch = packing(INNER, packed=False)
    q, k, v = tokens(*[len(INPUTS) * 6] * 3)
    masks = self_attention_masks(attention(tiny_t5, "encoder"), batch.encoder, causal=False)
    mixed = attend(q, k, v, batch.encoder, masks, heads=HEADS, dropout=0.0).view(len(INPUTS), 6, INNER)
    for row, size in enumerate(INPUTS):
        of_q, of_k, of_v = (x.view(len(INPUTS), 6, INNER)[row, :size] for x in (q, k, v))
        torch.testing.assert_close(mixed[row, :size], plain(of_q, of_k, of_v, row_bias(tiny_t5, "encoder", size)))


def test_rows_of_one_length_need_no_mask_across() -> None:
    even = Packing.of([3, 3], [2, 2], widths=(3, 2), inner=INNER, packed=True, device=torch.device("cpu"))
    assert cross_attention_masks(even.cross, torch.float32) == [None]
