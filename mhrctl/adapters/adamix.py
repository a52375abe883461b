"""AdaMix is a mixture of adaptations (arXiv 2205.12410) in its LoRA form: copies of one LoRA, of which each step trains some.

All copies start as one LoRA. Each step draws, for every layer, a copy of A and another of B, and runs them; a matrix that the
copies share is in every draw. Evaluation runs the mean over the copies, an ordinary LoRA, from which adaptation starts. MoSA
is the same with masks, by which each copy keeps to entries of its own. In a file:

    <layer>.lora_A    [1, 1, copies, d_in, rank], of one copy where it is shared
    <layer>.lora_B    [1, 1, copies, rank, d_out], likewise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.copies import Copies


class AdaMix(Copies):
    """AdaMix is an inventory of one skill of which there are copies.

    Attributes:
        shared: the matrix of which there is one, `A` or `B`, or `none`.
    """

    kind = "adamix"

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, copies: int, shared: str, consistency: float = 0.0) -> None:
        """Make new copies of one LoRA.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the LoRA.
            copies: how many.
            shared: the matrix of which there is one, `A` or `B`, or `none`.
            consistency: weight of the divergence between two draws for a batch.
        """
        super().__init__(shapes, config, copies=copies, consistency=consistency)
        self.shared = shared
        if shared != "A":
            self.lora_A = _copied(self.lora_A, copies)
        if shared != "B":
            self.lora_B = _copied(self.lora_B, copies)

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """Compose the adapter of all rows: while training of copies that are drawn for each layer, else of their mean.

        Returns:
            `<layer>.down` [1, r, d_in] and `<layer>.up` [1, r, d_out] with the scaling folded in.
        """
        of_copies = _drawn if self.training else _mean
        slots: dict[str, Tensor] = {}
        for names, bank_a, bank_b in zip(self.stacks.values(), self.lora_A, self.lora_B, strict=True):
            a, b = of_copies(bank_a), of_copies(bank_b)
            for place, name in enumerate(names):
                slots[f"{name}.down"], slots[f"{name}.up"] = a[:, place].mT, b[:, place] * self.scaling
        return slots

    def settings(self) -> dict[str, Any]:
        """Return the shapes, the LoRA's rank, alpha and dropout, and the copies."""
        lora = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return {"shapes": self.shapes, **lora, "copies": self.copies, "shared": self.shared, "consistency": self.consistency}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make copies from `settings`."""
        lora = InventoryConfig(rank=settings["rank"], alpha=settings["alpha"], dropout=settings["dropout"])
        return cls(settings["shapes"], lora, **{name: settings[name] for name in ("copies", "shared", "consistency")})


def _copied(banks: nn.ParameterList, copies: int) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(bank.detach().repeat(1, 1, 1, copies, 1, 1)) for bank in banks)


def _drawn(bank: Tensor) -> Tensor:
    """A copy of each layer's, of [1, layers, 1, copies, ...] as [1, layers, ...]."""
    layers, copies = bank.shape[1], bank.shape[3]
    drawn = torch.randint(copies, (1, layers, 1, 1, 1, 1), device=bank.device)
    return bank.take_along_dim(drawn, 3)[:, :, 0, 0]


def _mean(bank: Tensor) -> Tensor:
    """The mean of each layer's copies."""
    return bank.mean(3)[:, :, 0]
