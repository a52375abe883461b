"""Attention of sequences in one row against attention written out by hand, a sequence and a head at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mhrctl.models.packed_attention import NAME, packed, packed_attention
from tests.models.families import decoder

SIZES = [5, 1, 9, 3]
HEADS, WIDTH = 4, 8


def made(key_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a row, [1, heads, tokens, width]."""
    generator = torch.Generator().manual_seed(key_heads)
    query, key, value = (
        torch.randn(1, heads, sum(SIZES), WIDTH, generator=generator) for heads in (HEADS, key_heads, key_heads)
    )
    return query, key, value


def by_hand(parts: tuple[Tensor, Tensor, Tensor], *, scaling: float, window: int | None, softcap: float | None) -> Tensor:
    """What each token of each head gets, from the formula: [1, tokens, heads, width]."""
    query, key, value = parts
    output = torch.zeros(1, sum(SIZES), HEADS, WIDTH)
    for head in range(HEADS):
        shared = head * key.shape[1] // HEADS
        start = 0
        for size in SIZES:
            for token in range(size):
                first = 0 if window is None else max(0, token - window + 1)
                seen = slice(start + first, start + token + 1)
                products = key[0, shared, seen] @ query[0, head, start + token] * scaling
                if softcap is not None:
                    products = softcap * torch.tanh(products / softcap)
                output[0, start + token, head] = products.softmax(0) @ value[0, shared, seen]
            start += size
    return output


def ends() -> Tensor:
    return torch.tensor([0, *SIZES], dtype=torch.int32).cumsum(0, dtype=torch.int32)


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 3, 9, 50])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.9])
def test_a_token_sees_those_before_it_in_its_sequence(
    key_heads: int, window: int | None, softcap: float | None, scaling: float | None
) -> None:
    parts = made(key_heads)
    output, weights = packed_attention(
        nn.Module(), *parts, scaling=scaling, sliding_window=window, softcap=softcap, cu_seq_lens_q=ends()
    )
    assert weights is None
    expected = by_hand(parts, scaling=WIDTH**-0.5 if scaling is None else scaling, window=window, softcap=softcap)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert output.is_contiguous()


def test_choices_attend_to_their_input_too() -> None:
    """Keys are gathered where they stand: those of the first sequence are read by the second too."""
    query, key, value = made(2)
    places = torch.tensor([*range(5), *range(5), 5, *range(6, 18)])
    seen = torch.tensor([0, 5, 11, 20, 23], dtype=torch.int32)
    output, _ = packed_attention(
        nn.Module(), query, key, value, cu_seq_lens_q=ends(), cu_seq_lens_k=seen, key_places=places, max_length_k=9
    )
    alone, _ = packed_attention(nn.Module(), query, key, value, cu_seq_lens_q=ends())
    longer = torch.tensor([0, 6, 15, 18], dtype=torch.int32)
    joined, _ = packed_attention(nn.Module(), query, key, value, cu_seq_lens_q=longer)
    torch.testing.assert_close(output[:, 5], joined[:, 5])
    assert not torch.allclose(output[:, 5], alone[:, 5])
    for others in (slice(0, 5), slice(6, 18)):
        torch.testing.assert_close(output[:, others], alone[:, others])


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_dropout_is_of_the_weights(softcap: float | None) -> None:
    parts = made(2)
    torch.manual_seed(0)
    quiet, _ = packed_attention(nn.Module(), *parts, softcap=softcap, cu_seq_lens_q=ends())
    draws = [packed_attention(nn.Module(), *parts, softcap=softcap, dropout=0.3, cu_seq_lens_q=ends())[0] for _ in range(2000)]
    assert not torch.equal(draws[0], draws[1])
    assert (torch.stack(draws).mean(0) - quiet).abs().max() < 0.1


def test_nobody_guesses_where_sequences_end() -> None:
    with pytest.raises(ValueError, match="packed attention is not told where sequences end"):
        packed_attention(nn.Module(), *made(2))


def test_sinks_are_refused() -> None:
    layer = nn.Module()
    layer.sinks = nn.Parameter(torch.zeros(HEADS))
    with pytest.raises(ValueError, match="packed attention has no sinks"):
        packed_attention(layer, *made(2), cu_seq_lens_q=ends())


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt_oss"])
def test_a_model_attends_so_only_meanwhile_also_after_an_exception(kind: str) -> None:
    model: Any = deepcopy(decoder(kind))
    before = model.config._attn_implementation
    assert before in ("sdpa", "eager")
    ids = torch.tensor([[5, 6, 7]])
    logits = model(ids).logits
    with packed(model):
        assert model.config._attn_implementation == NAME
        assert all(layer.self_attn.config._attn_implementation == NAME for layer in model.model.layers)
        with pytest.raises(ValueError, match="packed attention"):  # transformers' own call says no ends
            model(ids)
    with pytest.raises(KeyboardInterrupt), packed(model):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == before
    assert torch.equal(model(ids).logits, logits)
