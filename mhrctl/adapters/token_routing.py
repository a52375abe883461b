"""Tokens are routed in the layers of a backbone while it runs: what a layer reads says how much each of its experts counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenRouting:
    """A token routing weighs the experts of a layer by the products of what it reads with a direction of each.

    An expert whose direction is zero has no part, as if it were not there.

    Attributes:
        top: so many experts of the largest products count; None is all.
        temperature: of the softmax over the products of those.
        unsigned: whether products count by their size alone, where a direction has no sign.
    """

    top: int | None = None
    temperature: float = 1.0
    unsigned: bool = False

    def __call__(self, x: Tensor, router: Tensor) -> Tensor:
        """Weigh the experts of each token.

        Args:
            x: what the layer reads, [n, tokens, d_in].
            router: the experts' directions, [n, experts, d_in].

        Returns:
            [n, tokens, experts] in fp32, each row summing to one; zeros where no expert has a part.
        """
        products = (x @ router.mT).float()
        products = products.abs() if self.unsigned else products
        absent = ~router.any(-1)[:, None]  # [n, 1, experts]
        products = products.masked_fill(absent, -torch.inf)
        if self.top is not None and self.top < products.shape[-1]:
            largest, places = products.topk(self.top)
            products = torch.full_like(products, -torch.inf).scatter(-1, places, largest)
        weights = torch.softmax(products / self.temperature, -1)
        return weights.masked_fill(absent.all(-1, keepdim=True), 0)


def mixed(x: Tensor, down: Tensor, up: Tensor, weights: Tensor) -> Tensor:
    """Compute the updates of experts, mixed for each token.

    The mixture is one LoRA of the rank of all experts together, between whose A and B the weights are.

    Args:
        x: [n, tokens, d_in].
        down: A of all experts, one after the other, [n, experts * r, d_in]; or one A that they share, [n, r, d_in].
        up: their B, [n, experts * r, d_out].
        weights: [n, tokens, experts].

    Returns:
        [n, tokens, d_out].
    """
    rank = up.shape[1] // weights.shape[-1]
    low = (x @ down.mT).unflatten(-1, (-1, rank))  # [n, tokens, experts or 1, r]
    update: Tensor = (weights.to(low.dtype)[..., None] * low).flatten(-2) @ up
    return update
