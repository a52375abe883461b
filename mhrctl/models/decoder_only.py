"""Decoder-only models read an input and its target in one sequence: Llama, Gemma, Qwen, GPT-2 and their kin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import PreTrainedModel

from mhrctl.data.batches import Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.backbone import Greedy
from mhrctl.models.encoder_decoder import Generation, cast
from mhrctl.models.layer import AdaptedLinear
from mhrctl.models.output import frozen_after, reading_only, rectangle, target_losses
from mhrctl.models.packed_attention import packed
from mhrctl.models.reading import Means, averaging, means_of
from mhrctl.models.sequences import Packed, Padded, Sequences, target_owners, target_sizes
from mhrctl.models.speed import Speed

PACKS = "packs_sequences"
"""Attribute of a model: whether it passed the test of sequences that are packed into one row (`mhrctl.models.self_test`)."""


class DecoderOnly:
    """A decoder-only model is a backbone whose sequences are packed into one row of tokens, or else padded at their ends.

    Padding at the end is right for every causal model, since no token sees what follows it; packing only for those that passed
    the backbone stage's test. Logits are made at the targets alone, and of losses some at a time.

    Attributes:
        model: the injected transformers model.
        packs: whether sequences are packed.
    """

    def __init__(self, model: PreTrainedModel, speed: Speed) -> None:
        if speed.needs_forward:
            raise ParamsError(
                f"--{speed.needs_forward} is an option of mhrctl's own forward of T5, not of {model.config.model_type}"
            )
        self.model, self.packs = model, speed.packing and bool(getattr(model, PACKS, False))
        self._call, self._generation = _Call(model), Generation(model)

    def token_losses(
        self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        sequences = self._sequences(inputs, targets)
        given = cast(slots, self.model) | self._owners(slots, sequences, targets)
        body = self.model.get_decoder()
        with packed(self.model) if self.packs else nullcontext():
            if frozen_after(self.model, [body], slots):
                return target_losses(
                    self.model,
                    body,
                    lambda: functional_call(self._call, given, kwargs=sequences.rows, tie_weights=False),
                    lambda _states: self.model.forward(**sequences.rows).logits,
                    targets,
                    sequences.kept,
                    label_smoothing=label_smoothing,
                )
            logits = self._of_targets(given, sequences).float()
        losses = F.cross_entropy(logits, targets.tokens, label_smoothing=label_smoothing, reduction="none")
        return rectangle(losses, targets)

    def logits(self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        sequences = self._sequences(inputs, targets)
        given = cast(slots, self.model) | self._owners(slots, sequences, targets)
        with packed(self.model) if self.packs else nullcontext():
            return rectangle(self._of_targets(given, sequences), targets)

    def reading(self, layers: Iterable[str], inputs: Ragged, targets: Ragged) -> AbstractContextManager[Means]:
        """See `mhrctl.models.backbone.Backbone`."""
        of_tokens = averaging(self._sequences(inputs, targets).owners_of_tokens(), len(inputs.lengths))
        return means_of(self.model, layers, lambda _layer, _x: of_tokens)

    @torch.no_grad()
    def generate(self, slots: Mapping[str, Tensor], inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """See `mhrctl.models.backbone.Backbone`."""
        mask = inputs.mask(left=True)
        # A row is padded with its own first token, which the mask hides from the model: what penalises repeated tokens looks at
        # ids alone, and would see the padding token, which may be the end.
        first = inputs.tokens[torch.tensor([0, *inputs.lengths[:-1]], device=inputs.tokens.device).cumsum(0)]
        ids = torch.where(mask.bool(), inputs.padded(0, left=True), first[:, None])
        options |= {"input_ids": ids, "attention_mask": mask}
        with reading_only(self.model):
            tokens: Tensor = functional_call(self._generation, cast(slots, self.model), kwargs=options, tie_weights=False)
        return tokens[:, ids.shape[1] :]

    def greedy(self, slots: Mapping[str, Tensor]) -> Greedy | None:  # noqa: ARG002 - of both kinds
        """See `mhrctl.models.backbone.Backbone`; no causal model is answered by a loop of our own."""
        return None

    def _sequences(self, inputs: Ragged, targets: Ragged) -> Sequences:
        return Packed(inputs, targets) if self.packs else Padded(inputs, targets, pad=self.model.config.pad_token_id)

    def _of_targets(self, given: Mapping[str, Tensor], sequences: Sequences) -> Tensor:
        """The logits that predict each target token, [target tokens, vocabulary]."""
        kept = sequences.kept
        with reading_only(self.model, kept):
            logits: Tensor = functional_call(self._call, dict(given), kwargs=sequences.rows, tie_weights=False).logits
        flat = logits.flatten(0, -2)
        return flat if len(flat) == len(kept) else flat[kept]  # of a model without an output layer to be seen

    def _owners(self, slots: Mapping[str, Tensor], sequences: Sequences, targets: Ragged) -> dict[str, Tensor]:
        """Say to adapted layers whose a token is, where groups have unequal numbers of them; whole weights have no groups."""
        names = {slot.rpartition(".")[0]: len(value) for slot, value in slots.items()}
        layers = {name: layer for name in names if isinstance(layer := self.model.get_submodule(name), AdaptedLinear)}
        groups = max((names[name] for name in layers), default=1)
        if groups == 1:
            return {}
        output = self.model.get_output_embeddings()
        of_targets = {"owners": target_owners(targets, groups), "sizes": target_sizes(targets, groups)}
        of_all = {"owners": sequences.owners(groups), "sizes": sequences.sizes(groups)} if isinstance(sequences, Packed) else {}
        read = {name: of_targets if layer is output else of_all for name, layer in layers.items()}
        return {f"backbone.{name}.{slot}": value for name, values in read.items() for slot, value in values.items()}


class _Call(nn.Module):
    """The model as a module of a module, so that slots have the same names wherever functional_call calls.

    What is called is the model's forward, not the model: see `mhrctl.models.sharding`.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **rows: Any) -> Any:  # noqa: ANN401
        return self.backbone.forward(**rows)
