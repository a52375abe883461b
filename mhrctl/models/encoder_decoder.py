"""Encoder-decoders read inputs in their encoder and targets in their decoder: T5, BART and their kin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.batches import IGNORED, Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.backbone import Greedy
from mhrctl.models.generation import takes_the_likeliest
from mhrctl.models.losses import token_losses
from mhrctl.models.output import LOGITS, frozen_after, target_losses, vocabulary_of
from mhrctl.models.reading import Means, averaging, means_of
from mhrctl.models.sequences import owners_of_padded
from mhrctl.models.sharding import is_sharded
from mhrctl.models.speed import Speed
from mhrctl.models.t5.greedy import answers
from mhrctl.models.t5.model import FastT5, unsupported_reason


class EncoderDecoder:
    """An encoder-decoder is a backbone whose inputs are padded at their ends, as its targets are.

    Attributes:
        model: the injected transformers model.
        fast: T5's forward of our own, where the model can be run by it.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter | None, speed: Speed) -> None:
        self.model = model
        self._scoring, self._generation = _Scoring(model), Generation(model)
        self.fast = _fast(model, adapter, speed)

    def token_losses(
        self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        labels = targets.padded(IGNORED)
        if self.fast is not None and (self.fast.trains or not self.model.training):
            lengths = inputs.lengths, targets.lengths
            rows = self._rows(inputs, labels)
            return self.fast.token_losses(slots, labels=labels, label_smoothing=label_smoothing, lengths=lengths, **rows)
        ends = self.model.get_encoder(), self.model.get_decoder()
        if labels.numel() * vocabulary_of(self.model) > LOGITS and frozen_after(self.model, ends, slots):
            return self._of_states(slots, inputs, targets, label_smoothing)
        return token_losses(self.logits(slots, inputs, targets), labels, label_smoothing=label_smoothing)

    def _of_states(self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged, label_smoothing: float) -> Tensor:
        """The losses of targets, of whose logits some are there at a time."""

        def after(states: Tensor) -> Tensor:
            start = torch.zeros(1, 1, dtype=torch.long, device=states.device)
            encoded = BaseModelOutput(last_hidden_state=states)  # which the decoder, whose states are told, does not read
            logits: Tensor = self.model.forward(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits
            return logits

        return target_losses(
            self.model,
            self.model.get_decoder(),
            lambda: self.logits(slots, inputs, targets),
            after,
            targets,
            targets.places,
            label_smoothing=label_smoothing,
        )

    def logits(self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        rows = self._rows(inputs, targets.padded(IGNORED))
        # Slots stand in for the layers' buffers during this call alone. `tie_weights` would look for tied ones among all
        # parameters at each call; a slot is tied to nothing.
        logits: Tensor = functional_call(self._scoring, cast(slots, self.model), kwargs=rows, tie_weights=False)
        return logits

    @contextmanager
    def reading(self, layers: Iterable[str], inputs: Ragged, targets: Ragged) -> Iterator[Means]:
        """See `mhrctl.models.backbone.Backbone`."""
        choices = len(targets.lengths) // len(inputs.lengths)
        encoding, decoder = set(self.model.get_encoder().modules()), self.model.get_decoder()
        states: list[Tensor] = []  # what the decoder attends to, once for each target

        def note(_module: nn.Module, _inputs: Any, named: Mapping[str, Any]) -> None:  # noqa: ANN401
            states.append(named["encoder_hidden_states"])

        def of_rows(mask: Tensor) -> Tensor:
            return averaging(owners_of_padded(mask, len(mask) // len(inputs.lengths)), len(inputs.lengths))

        of_encoder = of_rows(inputs.mask())
        of_states = of_rows(inputs.mask().repeat_interleave(choices, 0))
        of_targets = of_rows(targets.mask())

        def averaging_of(layer: str, x: Tensor) -> Tensor:
            if self.model.get_submodule(layer) in encoding:
                return of_encoder
            return of_states if any(x is each for each in states) else of_targets

        with decoder.register_forward_pre_hook(note, with_kwargs=True), means_of(self.model, layers, averaging_of) as means:
            yield means

    @torch.no_grad()
    def generate(self, slots: Mapping[str, Tensor], inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """See `mhrctl.models.backbone.Backbone`."""
        options |= {"input_ids": inputs.padded(self.model.config.pad_token_id), "attention_mask": inputs.mask()}
        tokens: Tensor = functional_call(self._generation, cast(slots, self.model), kwargs=options, tie_weights=False)
        return tokens[:, 1:]  # without the token that the decoder starts with

    def greedy(self, slots: Mapping[str, Tensor]) -> Greedy | None:
        """See `mhrctl.models.backbone.Backbone`."""
        if self.fast is None or self.model.training or is_sharded(self.model) or not takes_the_likeliest(self.model):
            return None
        if self.model.dtype != torch.float32:  # in bf16 two tokens are often equally likely, and rounding decides
            return None
        # One product has the adapters of all groups, where the numbers of one that are not finite would be in all rows.
        is_finite = all(bool(torch.isfinite(slot).all()) for slot in slots.values())
        return partial(answers, self.fast, slots) if is_finite else None

    def _rows(self, inputs: Ragged, labels: Tensor) -> dict[str, Tensor]:
        config = self.model.config
        return {
            "input_ids": inputs.padded(config.pad_token_id),
            "attention_mask": inputs.mask(),
            "decoder_input_ids": shift_right(labels, start=config.decoder_start_token_id, pad=config.pad_token_id),
        }


class Generation(nn.Module):
    """This is `generate` as a forward, which is what functional_call calls."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **options: Any) -> Any:  # noqa: ANN401
        """Generate with these options."""
        return self.backbone.generate(**options)  # type: ignore[operator]


def cast(slots: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Return slots in a model's dtype, by their names in the modules that functional_call calls."""
    return {f"backbone.{name}": slot.to(model.dtype) for name, slot in slots.items()}


def shift_right(labels: Tensor, *, start: int, pad: int) -> Tensor:
    """Return the decoder inputs of labels: the start token, then all labels but the last."""
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    return shifted.masked_fill(shifted == IGNORED, pad)


class _Scoring(nn.Module):
    """Teacher-forced logits, the encoder run once an input however many targets it has.

    What is called is the backbone's forward, not the backbone: see `mhrctl.models.sharding`.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        targets = len(decoder_input_ids) // len(input_ids)
        if targets == 1:
            output = self.backbone.forward(
                input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
            )
        else:
            states = self.backbone.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]
            output = self.backbone.forward(
                encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat_interleave(targets, 0)),
                attention_mask=attention_mask.repeat_interleave(targets, 0),
                decoder_input_ids=decoder_input_ids,
                use_cache=False,
            )
        logits: Tensor = output.logits
        return logits


def _fast(model: PreTrainedModel, adapter: Adapter | None, speed: Speed) -> FastT5 | None:
    """The forward of our own, if it is wanted and can run the model."""
    if adapter is not None and adapter.replaces_weights:
        reason: str | None = "whole weights are trained"
    elif adapter is not None and adapter.routes_by == "token":
        reason = "the adapters route tokens in each layer"
    else:
        reason = unsupported_reason(model, adapter.shapes if adapter else ()) if speed.forward else "it is switched off"
    wanted = speed.needs_forward
    if wanted and adapter is not None and adapter.dropout:
        reason = reason or "the adapters' inputs have dropout"
    if reason is None:
        packed = None if speed.packing else False
        return FastT5(model, packed=packed, checkpointing=speed.checkpointing, compiled=speed.compile)
    if wanted:
        raise ParamsError(f"--{wanted} is an option of mhrctl's own forward of T5, which cannot be used: {reason}")
    return None
