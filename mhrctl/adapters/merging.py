"""Several LoRAs of a layer become one: task arithmetic, TIES, DARE and KnOTS.

With dW_i = B_i^T A_i the update of the i-th LoRA, a merge first leaves out entries of each (TIES the smallest, DARE some at
random, for which the others make up). Then it adds the updates up, or takes the mean of those that have the sign that most of
them have, entry by entry. KnOTS does that in a basis that all of them share. Sources: arXiv 2212.04089 (task arithmetic),
2306.01708 (TIES), 2311.03099 (DARE), 2410.19735 (KnOTS); all but the last must agree with `peft.utils.merge_utils`.

In the form `product` the updates are merged, and of the result its best approximation of the rank of one LoRA is kept. In the
form `factors` all A and all B are merged, each for themselves, as in peft's combinations whose name does not end in `_svd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Drop = Literal["none", "smallest", "random"]
Election = Literal["total", "frequency"]
Form = Literal["product", "factors"]


@dataclass(frozen=True)
class Rule:
    """A rule is a row of the table of merges.

    Attributes:
        drop: which entries of each update are left out.
        elects: whether only entries of the sign that most have count, and their mean is taken; otherwise all are added up.
        aligned: whether updates are merged in their common basis.
    """

    drop: Drop = "none"
    elects: bool = False
    aligned: bool = False


RULES = {
    "task_arithmetic": Rule(),
    "ties": Rule("smallest", elects=True),
    "dare_linear": Rule("random"),
    "dare_ties": Rule("random", elects=True),
    "knots_ties": Rule("smallest", elects=True, aligned=True),
}
"""{merge: how it is done}."""


@dataclass(frozen=True)
class Merge:
    """A merge is a rule with its settings.

    Attributes:
        rule: how it is done.
        form: what is merged.
        density: part of the entries of each update that stays.
        election: whether the sign of an entry is that of the sum, or the one that more updates have.
        scale: factor of every update; None for that by which equal updates become one of them.
    """

    rule: Rule
    form: Form = "product"
    density: float = 1.0
    election: Election = "total"
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.rule.aligned and self.form == "factors":
            raise ValueError("a merge in a common basis is one of products")

    def __call__(self, a: Tensor, b: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Merge the LoRAs of a layer.

        Args:
            a: [n, r, d_in].
            b: [n, r, d_out], with the scaling folded in.
            generators: of random numbers, one for each LoRA, so that those of one do not depend on the others.

        Returns:
            A [r, d_in] and B [r, d_out].
        """
        if self.form == "factors":
            return self._combined(a, generators), self._combined(b, generators)
        rank = a.shape[1]
        if self.rule.aligned:
            basis, within = shared_basis(a, b)
            return low_rank(basis, self._combined(within, generators), rank)
        if self.rule.drop == "none" and not self.rule.elects:  # a sum has factors already
            return low_rank(self._scale(len(a)) * b.flatten(0, 1).T, a.flatten(0, 1), rank)
        update = self._combined(b.mT @ a, generators).double()
        u, sizes, vh = torch.linalg.svd(update, full_matrices=False)
        down, up = _factors(u, sizes, vh, rank)
        return down.to(a.dtype), up.to(b.dtype)

    def _scale(self, count: int) -> float:
        """The factor of each of so many tensors, of which the form `factors` gives A and B each the root."""
        scale = self.scale
        if scale is None:
            return 1.0 if self.rule.elects else 1.0 / count  # a mean of equals is one of them already
        return scale**0.5 if self.form == "factors" else scale

    def _combined(self, tensors: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Merge [n, ...] entry by entry."""
        kept = torch.stack([self._kept(each, generator) for each, generator in zip(tensors, generators, strict=True)])
        scaled = kept * self._scale(len(kept))
        if not self.rule.elects:
            return scaled.sum(0)
        counted = kept.sign()
        votes = kept if self.election == "total" else counted
        agrees = counted == torch.where(votes.sum(0) >= 0, 1, -1)
        return (scaled * agrees).sum(0) / agrees.sum(0).clamp(min=1)

    def _kept(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        if self.rule.drop == "none" or self.density >= 1:
            return tensor
        if self.rule.drop == "smallest":
            kept = torch.zeros(tensor.numel(), dtype=tensor.dtype)
            kept[tensor.abs().flatten().topk(int(self.density * tensor.numel())).indices] = 1
            return tensor * kept.view_as(tensor)
        return tensor * torch.bernoulli(torch.full_like(tensor, self.density), generator=generator) / self.density


def low_rank(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the LoRA nearest to a product, of which nothing as large as [d_out, d_in] is formed.

    Args:
        left: [d_out, k].
        right: [k, d_in].
        rank: r of the result.

    Returns:
        A [r, d_in] and B [r, d_out].
    """
    q_left, r_left = torch.linalg.qr(left.double())
    q_right, r_right = torch.linalg.qr(right.double().T)
    u, sizes, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    a, b = _factors(q_left @ u, sizes, vh @ q_right.T, rank)
    return a.to(right.dtype), b.to(left.dtype)


def shared_basis(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return U [d_out, k] and S V_i [n, k, d_in] of [dW_1 ... dW_n] = U S [V_1 ... V_n], the basis of KnOTS.

    The B are orthogonalised first, so that nothing as large as [d_out, d_in] is formed.

    Args:
        a: [n, r, d_in].
        b: [n, r, d_out].
    """
    count, rank, d_in = a.shape
    q, upper = torch.linalg.qr(b.double().flatten(0, 1).T)  # [d_out, k] and [k, n r]
    within = upper.unflatten(1, (count, rank)).transpose(0, 1) @ a.double()  # [n, k, d_in]
    u, sizes, vh = torch.linalg.svd(within.transpose(0, 1).flatten(1), full_matrices=False)
    shared = (sizes[:, None] * vh).unflatten(1, (count, d_in)).transpose(0, 1)
    return (q @ u).to(b.dtype), shared.to(a.dtype)


def _factors(u: Tensor, sizes: Tensor, vh: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A and B of the largest singular values, which are divided evenly between them; the rest is zero where there are fewer."""
    roots = sizes[:rank, None].sqrt()
    a, b = roots * vh[:rank], roots * u[:, :rank].T
    missing = (0, 0, 0, rank - len(roots))
    return F.pad(a, missing), F.pad(b, missing)
