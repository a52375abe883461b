"""Tokens are multiplied by the low-rank matrices of their group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from mhrctl.models.t5.packing import Placement, Stream, placement

PADDED_BELOW = {torch.float32: 2**14, torch.bfloat16: 2**18}
"""Numbers of the longest group's input up to which one product over padded groups is quicker than one each, on CPU."""


class Segments:
    """Segments are tokens of n groups, group after group.

    Low-rank activations, `low`, are [n, k, tokens of the longest group], zero where there is no token, or, where groups are
    long and unequal, [k, tokens]: k is never the narrow last axis of a product.

    Attributes:
        sizes: tokens of each group.
        equal: whether they are the same.
        padded: whether unequal groups are padded for products.
    """

    def __init__(self, sizes: Sequence[int], *, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Look at groups; `width` is that of a typical input."""
        self.sizes, self.equal = list(sizes), len(set(sizes)) == 1
        # Padded groups are one product where a loop is one a group: worth it where products are small, on a GPU always, as each
        # is a launch. Long groups on a CPU are quicker one by one, and then `low` needs no padding either.
        small = max(sizes) * width <= PADDED_BELOW.get(dtype, 0)
        self.padded = not self.equal and (small or device.type == "cuda")
        self._dtype, self._device = dtype, device

    @classmethod
    def of(cls, stream: Stream, groups: int, *, width: int, dtype: torch.dtype, device: torch.device) -> Self:
        """Return the segments of a stream whose rows are `groups` equal consecutive parts.

        Raises:
            ValueError: if they are not.
        """
        rows, rest = divmod(len(stream.sizes), groups)
        if rest:
            raise ValueError(f"a batch of {len(stream.sizes)} rows has no {groups} equal groups")
        sizes = [sum(stream.sizes[start : start + rows]) for start in range(0, len(stream.sizes), rows)]
        return cls(sizes, width=width, dtype=dtype, device=device)

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """Compute A x of each group.

        Args:
            x: [tokens, d].
            a: [n, k, d].

        Returns:
            low.
        """
        if self.equal:
            return torch.bmm(a, self._grouped(x).transpose(1, 2))
        if self.padded:  # zeros at empty places, where other tokens stand in: `correlate` sums over places
            return torch.bmm(a, self._grouped(x).transpose(1, 2)).mul_(self._present)
        return torch.cat([of_group @ part.t() for of_group, part in zip(a.unbind(), x.split(self.sizes), strict=True)], 1)

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """Add low^T B of each group to y [tokens, d], with b [n, k, d]."""
        if self.equal:
            self._grouped(y).baddbmm_(low.transpose(1, 2), b)
        elif self.padded:
            y.add_(torch.bmm(low.transpose(1, 2), b).flatten(0, 1).index_select(0, self._placement.places))
        else:
            for part, narrow, of_group in zip(y.split(self.sizes), low.split(self.sizes, 1), b.unbind(), strict=True):
                part.addmm_(narrow.t(), of_group)

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """Return the product of low and x [tokens, d] in each group, [n, k, d]."""
        if self.equal or self.padded:
            return torch.bmm(low, self._grouped(x))
        products = [narrow @ part for narrow, part in zip(low.split(self.sizes, 1), x.split(self.sizes), strict=True)]
        return torch.stack(products)

    def weigh(self, low: Tensor, weights: Tensor) -> Tensor:
        """Multiply low-rank activations by a weight of each token, [tokens, 1]."""
        by_place = self._grouped(weights).transpose(1, 2) if self.equal or self.padded else weights.view(1, -1)
        return low * by_place.to(low.dtype)

    def scale(self, y: Tensor, vectors: Tensor) -> Tensor:
        """Multiply y [tokens, d] by the vector of each group, [n, d]."""
        if self.equal:
            return (y.view(len(vectors), -1, y.shape[1]) * vectors[:, None]).view_as(y)
        return torch.cat([part * vector for part, vector in zip(y.split(self.sizes), vectors.unbind(), strict=True)])

    def _grouped(self, x: Tensor) -> Tensor:
        """[tokens, d] as [n, tokens of the longest group, d], with any token at an empty place; a view if groups are equal."""
        rows = x if self.equal else x.index_select(0, self._placement.sources)
        return rows.view(len(self.sizes), -1, x.shape[1])

    @cached_property
    def _placement(self) -> Placement:
        """Where tokens are in padded groups."""
        longest = max(self.sizes)
        starts = [longest * group for group in range(len(self.sizes))]
        padded = placement(self.sizes, starts, longest * len(self.sizes), self._device)
        assert padded is not None  # noqa: S101 - for the type checker; the groups are unequal
        return padded

    @cached_property
    def _present(self) -> Tensor:
        """[n, 1, tokens of the longest group], 1 where there is a token."""
        return self._placement.empty.logical_not().to(self._dtype).view(len(self.sizes), 1, -1)
