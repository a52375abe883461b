"""Copies of one LoRA are drawn while they are trained, and their mean, an ordinary LoRA, is what is evaluated and adapted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from mhrctl.adapters.adapter import Losses, Objective, Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.inventory import Inventory


class Copies(Inventory):
    """Copies are an inventory of one skill of which there are several; how they are kept and drawn, a subclass says.

    Attributes:
        copies: how many.
        consistency: weight of the divergence between two draws for a batch.
    """

    exports_to = frozenset()  # their average leaves, as the LoRA that it is
    has_alignment: ClassVar[bool] = False  # the gradients of A and of B are scaled apart by the mean over copies

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, copies: int, consistency: float) -> None:
        """Make one LoRA, of which a subclass makes copies.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the LoRA.
            copies: how many.
            consistency: weight of the divergence between two draws for a batch.
        """
        super().__init__(shapes, config)
        self.copies, self.consistency = copies, consistency

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make new copies of what is asked for, by the method's own settings."""
        asked = config.inventory
        return cls(shapes, InventoryConfig(rank=asked.rank, alpha=asked.alpha, dropout=asked.dropout), **config.options)

    @property
    def averageable(self) -> bool:
        """Whether there are copies, which there are always."""
        return True

    def like_average(self) -> Inventory:
        """Make an ordinary LoRA of the same rank."""
        return self._plain(runs=1)

    def composed(self) -> Inventory:
        """Return the mean over the copies."""
        return self.average()

    def objective(self, objective: Objective) -> Losses:
        """Return the losses of one draw, and how far a second draw's predictions are from them."""
        return Consistent(objective, self.consistency) if self.consistency else objective

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Inventory:
        """Start adaptation from the mean over the copies."""
        return self.average().for_new_tasks(seeds, train_skills=train_skills)


@dataclass(frozen=True)
class Consistent:
    """It gives the losses of one draw, plus half of `weight` times the divergence of two draws' predictions, taken both ways.

    Each way the other side is held fixed, so that either draw moves towards what the other says.

    Attributes:
        objective: gives the losses.
        weight: of the divergence.
    """

    objective: Objective
    weight: float

    def __call__(self, model: Any, batch: Any, *, runs: int) -> Tensor:  # noqa: ANN401 - types of rooms above
        """See `Losses`."""
        first, second = (self.objective.logits(model, batch) for _ in range(2))
        divergences = (_divergence(first, second.detach()) + _divergence(second, first.detach())) / 2
        divergences = divergences.masked_fill(batch.labels < 0, 0.0)  # where no token is counted
        losses = self.objective.of_logits(first, batch, runs=runs)
        return losses + self.weight * self.objective.over_runs(divergences, batch, runs=runs)


def _divergence(logits: Tensor, fixed: Tensor) -> Tensor:
    """KL(fixed || logits) of each token, [rows, length]."""
    target = F.log_softmax(fixed.float(), -1)
    return F.kl_div(F.log_softmax(logits.float(), -1), target, reduction="none", log_target=True).sum(-1)
