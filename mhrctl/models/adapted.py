"""The frozen backbone is called here with adapters attached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.batches import Ragged
from mhrctl.models.backbone import Backbone, Greedy
from mhrctl.models.decoder_only import DecoderOnly
from mhrctl.models.encoder_decoder import EncoderDecoder
from mhrctl.models.placement import is_spread
from mhrctl.models.reading import Means
from mhrctl.models.sharding import with_weights
from mhrctl.models.speed import Speed


class AdaptedModel(nn.Module):
    """An adapted model is a backbone whose adapted layers take their adapters from each call's task ids.

    Attributes:
        backbone: the injected transformers model (see `mhrctl.models.attach.inject`), frozen.
        adapter: what is attached; None is the bare backbone.
        speed: how it is run.
        kind: what runs the backbone, by its kind.
    """

    def __init__(self, backbone: PreTrainedModel, adapter: Adapter | None, *, speed: Speed = Speed()) -> None:
        super().__init__()
        self.backbone, self.adapter, self.speed = backbone, adapter, speed
        self.kind: Backbone = (
            EncoderDecoder(backbone, adapter, speed) if backbone.config.is_encoder_decoder else DecoderOnly(backbone, speed)
        )

    def forward(
        self,
        task_ids: Tensor | None,
        inputs: Ragged,
        targets: Ragged,
        *,
        label_smoothing: float = 0.0,
        with_logits: bool = False,
    ) -> Tensor:
        """Run the model.

        Args:
            task_ids: [runs, groups a run]; the rows are runs * groups consecutive groups of equally many.
            inputs: rows of input tokens.
            targets: c successive rows for each input (its answer choices), which is read once.
            label_smoothing: part of the target mass that is spread over the vocabulary.
            with_logits: return logits in place of losses.

        Returns:
            The cross-entropy of each target token in fp32, [rows * c, longest target], 0 after the end of a target; or the
            logits, [rows * c, longest target, vocabulary].
        """
        slots = self._slots_of(task_ids, inputs)

        def run() -> Tensor:
            if with_logits:
                return self.kind.logits(slots, inputs, targets)
            return self.kind.token_losses(slots, inputs, targets, label_smoothing=label_smoothing)

        values: Tensor = with_weights(self.backbone, run)
        return values

    def reading(self, inputs: Ragged, targets: Ragged) -> AbstractContextManager[Means]:
        """Take, while the logits of some rows are made, the mean of what each adapted layer reads over each row's tokens.

        Args:
            inputs: rows of input tokens.
            targets: c successive rows for each input, whose tokens count as the input's.

        Returns:
            A context, which gives {layer: [rows, d_in]}, in fp32.
        """
        layers = self.adapter.shapes if self.adapter is not None else ()
        return self.kind.reading(layers, inputs, targets)

    @torch.no_grad()
    def generate(self, task_ids: Tensor | None, inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """Generate with transformers' own `generate`; beams and returned sequences share the adapters of their row.

        Args:
            task_ids: as in `forward`.
            inputs: rows of input tokens.
            **options: of `generate`.

        Returns:
            The tokens of the answers alone, [rows, longest answer].
        """
        return self.kind.generate(self._slots_of(task_ids, inputs), inputs, **options)

    @torch.no_grad()
    def greedy(self, task_ids: Tensor | None) -> Greedy | None:
        """Return what answers rows of any group greedily, as `generate` would; None where only that can.

        Args:
            task_ids: as in `forward`, of all groups.
        """
        if self.adapter is not None and self.adapter.routes_by == "input":  # of which there is none yet
            return None
        return self.kind.greedy(self._slots(task_ids))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move what can be moved: a backbone that is spread over devices stays where it is."""
        if not is_spread(self.backbone):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        elif self.adapter is not None:
            self.adapter._apply(fn, recurse)  # type: ignore[no-untyped-call] # noqa: SLF001 - as a module's `to` does
        return self

    def _slots_of(self, task_ids: Tensor | None, inputs: Ragged) -> dict[str, Tensor]:
        if self.adapter is not None and self.adapter.routes_by == "input":
            return self.adapter.of_prompts(self._prompts_read(inputs))
        return self._slots(task_ids)

    @torch.no_grad()
    def _prompts_read(self, inputs: Ragged) -> Means:
        """What adapted layers read of prompts alone, without any adapter: in a decoder, at the token that it starts with."""
        rows = len(inputs.lengths)
        start = Ragged(inputs.tokens.new_zeros(rows), (1,) * rows)  # the last token of a target is predicted and never read
        was_training = self.backbone.training
        self.backbone.eval()
        with self.reading(inputs, start) as means:
            with_weights(self.backbone, lambda: self.kind.logits({}, inputs, start))
        self.backbone.train(was_training)
        return means

    def _slots(self, task_ids: Tensor | None) -> dict[str, Tensor]:
        if self.adapter is None:
            return {}
        if self.adapter.token_routing is not None:  # another adapter of the same layers may have another
            for name in self.adapter.shapes:
                self.backbone.get_submodule(name).token_routing = self.adapter.token_routing  # type: ignore[assignment]
        slots: dict[str, Tensor] = self.adapter(task_ids)
        return slots
