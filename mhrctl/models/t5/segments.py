"""Tokens are multiplied by the low-rank matrices of their group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from mhrctl.models.product import EqualGroups, SplitGroups
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
        self.sizes, self.equal, self._device = list(sizes), len(set(sizes)) == 1, device
        # Padded groups are one product where a loop is one a group: worth it where products are small, on a GPU always, as each
        # is a launch. Long groups on a CPU are quicker one by one, and then `low` needs no padding either.
        small = max(sizes) * width <= PADDED_BELOW.get(dtype, 0)
        self.padded = not self.equal and (small or device.type == "cuda")
        self._groups: EqualGroups | SplitGroups | _PaddedGroups = SplitGroups(sizes)
        if self.equal:
            self._groups = EqualGroups(len(self.sizes))
        elif self.padded:
            self._groups = _PaddedGroups(self.sizes, dtype, device)

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

    @cached_property
    def owners(self) -> Tensor:
        """The group of each token, [tokens]."""
        numbers = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        return numbers.to(self._device, non_blocking=True)

    def low(self, by_token: Tensor) -> Tensor:
        """Return low-rank activations [tokens, k] in the form that `correlate` reads."""
        groups = self._groups
        if isinstance(groups, SplitGroups):
            return by_token.t()
        if isinstance(groups, _PaddedGroups):
            return groups.present(by_token)
        return groups.grouped(by_token).transpose(1, 2)

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """Compute A x of each group.

        Args:
            x: [tokens, d].
            a: [n, k, d].

        Returns:
            low.
        """
        return self._groups.reduce(x, a)

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """Add low^T B of each group to y [tokens, d], with b [n, k, d]."""
        self._groups.expand_(y, low, b)

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """Return the product of low and x [tokens, d] in each group, [n, k, d]."""
        return self._groups.correlate(low, x)

    def weigh(self, low: Tensor, weights: Tensor) -> Tensor:
        """Multiply low-rank activations by a weight of each token, [tokens, 1]."""
        groups = self._groups
        by_place = weights.view(1, -1) if isinstance(groups, SplitGroups) else groups.grouped(weights).transpose(1, 2)
        return low * by_place.to(low.dtype)

    def scale(self, y: Tensor, vectors: Tensor) -> Tensor:
        """Multiply y [tokens, d] by the vector of each group, [n, d]."""
        if self.equal:
            return (y.view(len(vectors), -1, y.shape[1]) * vectors[:, None]).view_as(y)
        return torch.cat([part * vector for part, vector in zip(y.split(self.sizes), vectors.unbind(), strict=True)])


class _PaddedGroups:
    """Padded groups are unequal, and one product has all of them; `low` is [n, k, tokens of the longest group]."""

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._sizes, self._dtype, self._device = sizes, dtype, device

    def reduce(self, x: Tensor, a: Tensor) -> Tensor:
        """See `mhrctl.models.product.Groups`; zeros at empty places, where others stand in: `correlate` sums over places."""
        return torch.bmm(a, self.grouped(x).transpose(1, 2)).mul_(self._present)

    def present(self, by_token: Tensor) -> Tensor:
        """Return [tokens, k] as [n, k, tokens of the longest group], zero at empty places."""
        return self.grouped(by_token).transpose(1, 2) * self._present

    def expand_(self, y: Tensor, low: Tensor, b: Tensor) -> None:
        """See `mhrctl.models.product.Groups`."""
        y.add_(torch.bmm(low.transpose(1, 2), b).flatten(0, 1).index_select(0, self._placement.places))

    def correlate(self, low: Tensor, x: Tensor) -> Tensor:
        """See `mhrctl.models.product.Groups`."""
        return torch.bmm(low, self.grouped(x))

    def grouped(self, x: Tensor) -> Tensor:
        """Return [tokens, d] as [n, tokens of the longest group, d], with any token at an empty place."""
        return x.index_select(0, self._placement.sources).view(len(self._sizes), -1, x.shape[1])

    @cached_property
    def _placement(self) -> Placement:
        """Where tokens are in padded groups."""
        longest = max(self._sizes)
        starts = [longest * group for group in range(len(self._sizes))]
        padded = placement(self._sizes, starts, longest * len(self._sizes), self._device)
        assert padded is not None  # noqa: S101 - for the type checker; the groups are unequal
        return padded

    @cached_property
    def _present(self) -> Tensor:
        """[n, 1, tokens of the longest group], 1 where there is a token."""
        return self._placement.empty.logical_not().to(self._dtype).view(len(self._sizes), 1, -1)
