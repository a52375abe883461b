"""The frozen backbone wearing the adapters of an inventory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from mhrctl.adapters.inventory import Inventory


class AdaptedModel(nn.Module):
    """An encoder-decoder whose adapted layers take their adapters from each call's task ids.

    Attributes:
        backbone: the injected transformers model (see `mhrctl.adapters.layer.inject`), frozen.
        inventory: skills and routing; None is the bare backbone.
    """

    def __init__(self, backbone: PreTrainedModel, inventory: Inventory | None) -> None:
        super().__init__()
        self.backbone, self.inventory = backbone, inventory
        self._generation = _Generation(backbone)

    def forward(self, task_ids: Tensor | None, **inputs: Tensor) -> Tensor:
        """Run the model.

        Args:
            task_ids: [runs, groups a run]; the batch is runs * groups consecutive groups of equally many rows.
            **inputs: of the backbone's own forward: `input_ids` and `attention_mask` [batch, length], `decoder_input_ids`
                [batch, target length].

        Returns:
            Logits, [batch, target length, vocabulary].
        """
        output = functional_call(self.backbone, self._slots(task_ids), kwargs={**inputs, "use_cache": False}, tie_weights=False)
        logits: Tensor = output.logits
        return logits

    @torch.no_grad()
    def generate(self, task_ids: Tensor | None, **options: Any) -> Tensor:  # noqa: ANN401 - options of transformers
        """Generate with transformers' own `generate`; beams and returned sequences share the adapters of their row.

        Args:
            task_ids: as in `forward`.
            **options: inputs and options of `generate`.

        Returns:
            Token ids, [batch, length].
        """
        slots = {f"backbone.{name}": slot for name, slot in self._slots(task_ids).items()}
        tokens: Tensor = functional_call(self._generation, slots, kwargs=options, tie_weights=False)
        return tokens

    def _slots(self, task_ids: Tensor | None) -> dict[str, Tensor]:
        if self.inventory is None:
            return {}
        return {name: slot.to(self.backbone.dtype) for name, slot in self.inventory(task_ids).items()}


class _Generation(nn.Module):
    """`generate` as a forward, which is what functional_call calls."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **options: Any) -> Any:  # noqa: ANN401
        return self.backbone.generate(**options)  # type: ignore[operator]
