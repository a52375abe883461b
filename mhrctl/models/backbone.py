"""A backbone can do three things with rows of tokens, whichever of its two kinds it is: no other room asks for the kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from mhrctl.data.batches import Ragged


class Backbone(Protocol):
    """A backbone is a frozen transformers model that gives losses and logits of targets, and generates answers.

    Slots are what adapters give for a call (see `mhrctl.models.layer.AdaptedLinear`), in any dtype; the rows are n equal
    consecutive groups, each with the adapters of its own.

    Attributes:
        model: the injected transformers model (see `mhrctl.models.attach.inject`).
    """

    model: PreTrainedModel

    def token_losses(
        self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Compute the cross-entropy of each target token.

        Args:
            slots: of the adapters.
            inputs: rows of input tokens, as the framing of the prepare stage has made them.
            targets: c successive rows for each input (its answer choices), which is read once.
            label_smoothing: part of the target mass that is spread over the vocabulary.

        Returns:
            [rows * c, longest target], in fp32; 0 after the end of a target.
        """

    def logits(self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged) -> Tensor:
        """Compute the teacher-forced logits of targets, [rows * c, longest target, vocabulary]."""

    def generate(self, slots: Mapping[str, Tensor], inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """Generate with transformers' own `generate`; beams and returned sequences share the adapters of their row.

        Args:
            slots: of the adapters.
            inputs: rows of input tokens.
            **options: of `generate`.

        Returns:
            The tokens of the answers alone, [rows, longest answer].
        """
