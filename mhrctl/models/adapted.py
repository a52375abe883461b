"""The frozen backbone is called here with adapters attached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.batches import Lengths
from mhrctl.errors import ParamsError
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from mhrctl.models.t5.model import FastT5, unsupported_reason


class AdaptedModel(nn.Module):
    """An adapted model is an encoder-decoder whose adapted layers take their adapters from each call's task ids.

    Attributes:
        backbone: the injected transformers model (see `mhrctl.models.attach.inject`), frozen.
        adapter: what is attached; None is the bare backbone.
        speed: how it is run.
        fast: T5's forward of our own, where the model can be run by it.
    """

    def __init__(self, backbone: PreTrainedModel, adapter: Adapter | None, *, speed: Speed = Speed()) -> None:
        super().__init__()
        self.backbone, self.adapter, self.speed = backbone, adapter, speed
        self._scoring, self._generation = _Scoring(backbone), _Generation(backbone)
        self.fast = _fast(backbone, adapter, speed)

    def forward(
        self,
        task_ids: Tensor | None,
        *,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        lengths: Lengths | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Run the model.

        Args:
            task_ids: [runs, groups a run]; the batch is runs * groups consecutive groups of equally many rows.
            labels: [batch * c, target length]; -100 is not counted.
            label_smoothing: part of the target mass that is spread over the vocabulary.
            lengths: tokens of each input and of each label row, where they are known; it spares the wait for a device.
            **inputs: `input_ids` and `attention_mask` [batch, length], `decoder_input_ids` [batch * c, target length]: c
                successive rows for each input (its answer choices), which is encoded once.

        Returns:
            The cross-entropy of each token in fp32, [batch * c, target length], 0 where the label is -100; without labels
            the logits, [batch * c, target length, vocabulary].
        """
        slots = self._slots(task_ids)
        if labels is not None and self.fast is not None and (self.fast.trains or not self.training):
            return self.fast.token_losses(slots, labels=labels, label_smoothing=label_smoothing, lengths=lengths, **inputs)
        # Slots stand in for the layers' buffers during this call alone. `tie_weights` would look for tied ones among all
        # parameters at each call; a slot is tied to nothing.
        logits: Tensor = functional_call(self._scoring, self._cast(slots), kwargs=inputs, tie_weights=False)
        return logits if labels is None else token_losses(logits, labels, label_smoothing=label_smoothing)

    @torch.no_grad()
    def generate(self, task_ids: Tensor | None, **options: Any) -> Tensor:  # noqa: ANN401 - options of transformers
        """Generate with transformers' own `generate`; beams and returned sequences share the adapters of their row.

        Args:
            task_ids: as in `forward`.
            **options: inputs and options of `generate`.

        Returns:
            Token ids, [batch, length].
        """
        slots = self._cast(self._slots(task_ids))
        tokens: Tensor = functional_call(self._generation, slots, kwargs=options, tie_weights=False)
        return tokens

    def _slots(self, task_ids: Tensor | None) -> dict[str, Tensor]:
        return {} if self.adapter is None else self.adapter(task_ids)

    def _cast(self, slots: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Slots by their names in the modules that functional_call calls."""
        return {f"backbone.{name}": slot.to(self.backbone.dtype) for name, slot in slots.items()}


def _fast(backbone: PreTrainedModel, adapter: Adapter | None, speed: Speed) -> FastT5 | None:
    """The forward of our own, if it is wanted and can run the model."""
    if adapter is not None and adapter.replaces_weights:
        reason: str | None = "whole weights are trained"
    else:
        reason = unsupported_reason(backbone, adapter.shapes if adapter else ()) if speed.forward else "it is switched off"
    wanted = speed.needs_forward
    if wanted and adapter is not None and adapter.dropout:
        reason = reason or "the adapters' inputs have dropout"
    if reason is None:
        packed = None if speed.packing else False
        return FastT5(backbone, packed=packed, checkpointing=speed.checkpointing, compiled=speed.compile)
    if wanted:
        raise ParamsError(f"--{wanted} is an option of mhrctl's own forward of T5, which cannot be used: {reason}")
    return None


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
