"""Batches are laid out without padding: where the tokens of ragged rows lie, and in which blocks they attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from mhrctl.data.batches import IGNORED

WASTE = 2**17
"""Padding that attention accepts for one call less: scores a row times heads * d_kv, as measured on CPU."""


@dataclass(frozen=True)
class Stream:
    """A stream holds the kept tokens of some rows, row after row.

    Attributes:
        sizes: how many tokens of each row are kept.
        kept: [tokens], their places in the padded rows laid end to end; None if all are kept.
    """

    sizes: tuple[int, ...]
    kept: Tensor | None

    @classmethod
    def of(cls, sizes: Sequence[int], width: int, device: torch.device) -> Self:
        """Keep the first tokens of each row of `width` tokens."""
        if all(size == width for size in sizes):
            return cls(tuple(sizes), None)
        real = torch.arange(width) < torch.tensor(sizes)[:, None]
        return cls(tuple(sizes), real.flatten().nonzero().flatten().to(device))

    def take(self, padded: Tensor) -> Tensor:
        """Return the kept ones of [rows, width], as [tokens]."""
        return padded.flatten() if self.kept is None else padded.flatten().index_select(0, self.kept)

    def put(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Put [tokens] at their places in [rows, width], with zeros elsewhere."""
        if self.kept is None:
            return tokens.view_as(like)
        return tokens.new_zeros(like.numel()).index_copy(0, self.kept, tokens).view_as(like)


@dataclass(frozen=True)
class Placement:
    """A placement says where the tokens of a stream stand in padded blocks.

    Attributes:
        places: [tokens].
        sources: [places], the token at each place; any at an empty one.
        empty: [places, 1].
    """

    places: Tensor
    sources: Tensor
    empty: Tensor


@dataclass(frozen=True)
class Plan:
    """A plan says how rows attend: blocks of rows of similar length, each padded to its longest.

    Attributes:
        shapes: (rows, queries a row, keys a row) of each block.
        queries: None where blocks after blocks are the stream as it is.
        keys: likewise.
        absent: for each block, [rows, 1, 1, keys], where there is no key; None where all are there, or none is ever seen.
    """

    shapes: tuple[tuple[int, int, int], ...]
    queries: Placement | None
    keys: Placement | None
    absent: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Packing:
    """A packing is the layout of a batch, made once a step.

    Attributes:
        inputs: the encoder's tokens.
        targets: the decoder's.
        encoder: how input tokens attend to each other.
        decoder: how target tokens attend to those before them.
        cross: how all target tokens of an input attend to its tokens.
    """

    inputs: Stream
    targets: Stream
    encoder: Plan
    decoder: Plan
    cross: Plan

    @classmethod
    def of(
        cls,
        input_sizes: Sequence[int],
        target_sizes: Sequence[int],
        *,
        widths: tuple[int, int],
        inner: int,
        packed: bool,
        device: torch.device,
    ) -> Self:
        """Lay out a batch.

        Args:
            input_sizes: real tokens of each input.
            target_sizes: real tokens of each target; c successive targets belong to an input.
            widths: padded tokens of an input and of a target.
            inner: heads * d_kv.
            packed: False keeps the padding.
            device: of the model.
        """
        each = len(target_sizes) // len(input_sizes)
        # Without packing all places are kept, as many as the widths say, and the real sizes serve to hide padded keys alone.
        inputs = Stream.of(input_sizes if packed else [widths[0]] * len(input_sizes), widths[0], device)
        targets = Stream.of(target_sizes if packed else [widths[1]] * len(target_sizes), widths[1], device)
        # Cross-attention has no order among its queries, so all targets of an input are one row of queries over its keys.
        together = [sum(targets.sizes[start : start + each]) for start in range(0, len(target_sizes), each)]
        waste = WASTE // inner
        return cls(
            inputs,
            targets,
            _plan(inputs.sizes, inputs.sizes, input_sizes, waste, device),
            _plan(targets.sizes, targets.sizes, None, waste, device),  # padding is after a target, where causality hides it
            _plan(together, inputs.sizes, input_sizes, waste, device),
        )


def input_sizes(attention_mask: Tensor) -> list[int]:
    """Count the tokens of each row of a mask [rows, length] on any device.

    Raises:
        ValueError: if a row is not ones followed by zeros.
    """
    mask = attention_mask.cpu().bool()
    sizes = mask.sum(1)
    # The first tokens of a row are taken for the real ones, and a row without any would have no key to attend to.
    if bool((sizes == 0).any()) or not torch.equal(mask, torch.arange(mask.shape[1]) < sizes[:, None]):
        raise ValueError("attention_mask must be ones followed by zeros in every row")
    tokens: list[int] = sizes.tolist()
    return tokens


def target_sizes(labels: Tensor) -> list[int]:
    """Count the tokens of each row of labels [rows, length] on any device, up to the last that is not -100."""
    number = torch.arange(1, labels.shape[1] + 1)
    tokens: list[int] = (number * (labels.cpu() != IGNORED)).amax(1).tolist()
    return tokens


def placement(sizes: Sequence[int], starts: Sequence[int], places: int, device: torch.device) -> Placement | None:
    """Return where the tokens of rows stand in places end to end.

    Args:
        sizes: tokens of each row.
        starts: the place of each row's first.
        places: in all.
        device: of the tensors.

    Returns:
        None where tokens and places are the same.
    """
    *firsts, total = accumulate(sizes, initial=0)
    if places == total and firsts == list(starts):
        return None
    tokens = torch.arange(total)
    shift = torch.tensor([start - first for start, first in zip(starts, firsts, strict=True)])
    at = tokens + shift.repeat_interleave(torch.tensor(sizes))
    sources = torch.zeros(places, dtype=torch.long).index_copy(0, at, tokens)
    empty = torch.ones(places, 1, dtype=torch.bool).index_fill(0, at, 0)
    return Placement(at.to(device), sources.to(device), empty.to(device))


def _plan(queries: Sequence[int], keys: Sequence[int], real: Sequence[int] | None, waste: int, device: torch.device) -> Plan:
    """Plan the attention of rows with `queries` over `keys` stored tokens, of which the first `real` ones are seen."""
    shapes, absent, query_starts, key_starts = [], [], [0] * len(queries), [0] * len(keys)
    query_places = key_places = 0
    for rows in _blocks(queries, keys, waste):
        # Rows without tokens, such as choices that a task does not have, get a place all the same, of which nothing is
        # collected: attention over nothing is not for every kernel.
        shape = (len(rows), max(1, *(queries[row] for row in rows)), max(1, *(keys[row] for row in rows)))
        for number, row in enumerate(rows):
            query_starts[row] = query_places + number * shape[1]
            key_starts[row] = key_places + number * shape[2]
        query_places += shape[0] * shape[1]
        key_places += shape[0] * shape[2]
        shapes.append(shape)
        seen = [shape[2] if real is None else real[row] for row in rows]
        absent.append(None if min(seen) == shape[2] else _absent(seen, shape[2]).to(device))
    of_queries = placement(queries, query_starts, query_places, device)
    # Self-attention gives the same sizes twice, which then are one object; its tokens are placed once.
    same = queries is keys and query_places == key_places
    of_keys = of_queries if same else placement(keys, key_starts, key_places, device)
    return Plan(tuple(shapes), of_queries, of_keys, tuple(absent))


def _blocks(queries: Sequence[int], keys: Sequence[int], waste: int) -> list[list[int]]:
    """Rows sorted by length, in blocks whose padding costs less than one block more.

    Rows come from the longest to the shortest, so a block's keys are as many as its first row has. One row more joins it while
    the block's padding, in scores, stays below `waste` a row; it is greedy, since the best cut is not worth its search.
    """
    blocks: list[list[int]] = []
    most = longest = area = 0
    for row in sorted(range(len(keys)), key=lambda row: (keys[row], queries[row]), reverse=True):
        most, area = max(most, queries[row]), area + queries[row] * keys[row]
        rows = len(blocks[-1]) + 1 if blocks else 1
        if blocks and rows * most * longest - area <= rows * waste:
            blocks[-1].append(row)
        else:
            blocks.append([row])
            most, longest, area = queries[row], keys[row], queries[row] * keys[row]
    return blocks


def _absent(seen: Sequence[int], width: int) -> Tensor:
    return (torch.arange(width) >= torch.tensor(seen)[:, None])[:, None, None]
