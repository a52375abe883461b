"""The frozen backbone wearing adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from mhrctl.adapters.adapter import Adapter


class AdaptedModel(nn.Module):
    """An encoder-decoder whose adapted layers take their adapters from each call's task ids.

    Attributes:
        backbone: the injected transformers model (see `mhrctl.adapters.layer.inject`), frozen.
        adapter: what it wears; None is the bare backbone.
    """

    def __init__(self, backbone: PreTrainedModel, adapter: Adapter | None) -> None:
        super().__init__()
        self.backbone, self.adapter = backbone, adapter
        self._scoring, self._generation = _Scoring(backbone), _Generation(backbone)

    def forward(self, task_ids: Tensor | None, **inputs: Tensor) -> Tensor:
        """Run the model.

        Args:
            task_ids: [runs, groups a run]; the batch is runs * groups consecutive groups of equally many rows.
            **inputs: `input_ids` and `attention_mask` [batch, length], `decoder_input_ids` [batch * c, target length]: c
                successive rows for each input (its answer choices), which is encoded once.

        Returns:
            Logits, [batch * c, target length, vocabulary].
        """
        logits: Tensor = functional_call(self._scoring, self._slots(task_ids), kwargs=inputs, tie_weights=False)
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
        tokens: Tensor = functional_call(self._generation, self._slots(task_ids), kwargs=options, tie_weights=False)
        return tokens

    def _slots(self, task_ids: Tensor | None) -> dict[str, Tensor]:
        if self.adapter is None:
            return {}
        return {f"backbone.{name}": slot.to(self.backbone.dtype) for name, slot in self.adapter(task_ids).items()}


class _Scoring(nn.Module):
    """Teacher-forced logits, the encoder run once an input however many targets it has."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        targets = len(decoder_input_ids) // len(input_ids)
        if targets == 1:
            output = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
            )
        else:
            states = self.backbone.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            output = self.backbone(
                encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat_interleave(targets, 0)),
                attention_mask=mask.repeat_interleave(targets, 0),
                decoder_input_ids=decoder_input_ids,
                use_cache=False,
            )
        logits: Tensor = output.logits
        return logits


class _Generation(nn.Module):
    """`generate` as a forward, which is what functional_call calls."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **options: Any) -> Any:  # noqa: ANN401
        return self.backbone.generate(**options)  # type: ignore[operator]
