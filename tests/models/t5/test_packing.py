"""Layouts of batches, against what they must hold."""

from __future__ import annotations

import pytest
import torch

from mhrctl.models.t5.packing import WASTE, Packing, Plan, Stream, input_sizes, target_sizes

CPU = torch.device("cpu")
INPUTS, TARGETS = [9, 2, 9, 4], [3, 0, 1, 5, 2, 2, 0, 1]


def packing(*, packed: bool = True, inner: int = WASTE) -> Packing:
    return Packing.of(INPUTS, TARGETS, widths=(12, 6), inner=inner, packed=packed, device=CPU)


def test_a_stream_takes_real_tokens_and_puts_them_back() -> None:
    padded = torch.arange(1, 13).view(3, 4)
    stream = Stream.of([2, 0, 3], 4, CPU)
    assert stream.take(padded).tolist() == [1, 2, 9, 10, 11]
    assert stream.put(stream.take(padded), padded).tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [9, 10, 11, 0]]
    whole = Stream.of([4, 4, 4], 4, CPU)
    assert whole.kept is None
    assert torch.equal(whole.put(whole.take(padded), padded), padded)


def seen(plan: Plan, queries: list[int], keys: list[int]) -> dict[int, list[int]]:
    """{query token: the key tokens that it can see} of a plan, by placing numbers."""
    tokens = {"queries": sum(queries), "keys": sum(keys)}
    flat = {
        side: torch.arange(total) if (at := getattr(plan, side)) is None else at.sources.masked_fill(at.empty[:, 0], -1)
        for side, total in tokens.items()
    }
    seen_keys: dict[int, list[int]] = {}
    q = k = 0
    for (rows, most, longest), absent in zip(plan.shapes, plan.absent, strict=True):
        row_q, row_k = flat["queries"][q : q + rows * most].view(rows, -1), flat["keys"][k : k + rows * longest].view(rows, -1)
        hidden = torch.zeros(rows, longest, dtype=torch.bool) if absent is None else absent[:, 0, 0]
        for row in range(rows):
            visible = row_k[row][~hidden[row]].tolist()
            seen_keys |= {token: visible for token in row_q[row].tolist() if token >= 0}
        q, k = q + rows * most, k + rows * longest
    return seen_keys


@pytest.mark.parametrize("inner", [1, 2**15, WASTE, 2**30])
def test_tokens_see_those_of_their_row(inner: int) -> None:
    batch = packing(inner=inner)
    keys = list(torch.arange(sum(INPUTS)).split(INPUTS))
    same_row = {token: part.tolist() for part in keys for token in part.tolist()}
    assert seen(batch.encoder, INPUTS, INPUTS) == same_row
    together = [3, 6, 4, 1]
    parts = torch.arange(sum(together)).split(together)
    expected = {token: row.tolist() for part, row in zip(parts, keys, strict=True) for token in part.tolist()}
    assert seen(batch.cross, together, INPUTS) == expected


def test_waste_is_weighed_against_calls() -> None:
    assert len(packing(inner=1).encoder.shapes) == 1
    assert len(packing(inner=2**30).encoder.shapes) == 3  # the two rows of 9 tokens are one block
    assert packing(inner=2**30).encoder.absent == (None, None, None)


@pytest.mark.parametrize("inner", [1, 2**30])
def test_rows_without_tokens_have_a_place_of_which_nothing_is_collected(inner: int) -> None:
    batch = packing(inner=inner)
    assert min(TARGETS) == 0
    assert all(min(shape) > 0 for plan in (batch.encoder, batch.decoder, batch.cross) for shape in plan.shapes)
    placed = sum(rows * queries for rows, queries, _ in batch.decoder.shapes)
    assert batch.decoder.queries is not None
    assert len(batch.decoder.queries.places) == sum(TARGETS) < placed


def test_padding_is_kept_if_asked_for() -> None:
    batch = packing(packed=False)
    assert {batch.inputs.kept, batch.targets.kept, batch.encoder.queries, batch.cross.keys} == {None}
    assert batch.encoder.shapes == ((4, 12, 12),)
    assert batch.decoder.shapes == ((8, 6, 6),)
    assert batch.cross.shapes == ((4, 12, 12),)
    assert batch.encoder.absent[0] is not None
    assert (~batch.encoder.absent[0]).sum((1, 2, 3)).tolist() == INPUTS


def test_sizes() -> None:
    assert input_sizes(torch.tensor([[1, 1, 0], [1, 1, 1]])) == [2, 3]
    assert target_sizes(torch.tensor([[5, -100, 4, -100], [-100, -100, -100, -100]])) == [3, 0]
    for hole in ([0, 1, 1], [1, 0, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="ones followed by zeros"):
            input_sizes(torch.tensor([[1, 1, 1], hole]))
