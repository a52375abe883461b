"""A backbone can do three things with rows of tokens, whichever of its two kinds it is: no other room asks for the kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from mhrctl.data.batches import Ragged
from mhrctl.models.reading import Means


class Greedy(Protocol):
    """This answers rows, each by the most likely token after each other."""

    def __call__(
        self, inputs: Ragged, owners: Sequence[int], *, ends: Sequence[int], max_new_tokens: int
    ) -> tuple[Tensor, Tensor]:
        """Answer them.

        Args:
            inputs: rows of input tokens.
            owners: the group of each row, in ascending order; groups may have any number of rows.
            ends: tokens that end an answer.
            max_new_tokens: tokens of an answer at most.

        Returns:
            The tokens of the answers alone, [rows, longest answer], and for each row whether all its logits were finite.
        """


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

    def reading(self, layers: Iterable[str], inputs: Ragged, targets: Ragged) -> AbstractContextManager[Means]:
        """Take the mean of what layers read over the tokens of each input and its targets, while `logits` of them runs."""

    def generate(self, slots: Mapping[str, Tensor], inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """Generate with transformers' own `generate`; beams and returned sequences share the adapters of their row.

        Args:
            slots: of the adapters.
            inputs: rows of input tokens.
            **options: of `generate`.

        Returns:
            The tokens of the answers alone, [rows, longest answer].
        """

    def greedy(self, slots: Mapping[str, Tensor]) -> Greedy | None:
        """Return what answers rows of any group by a loop of our own, as `generate` does without beams; None if that must."""
