"""An objective says how a batch becomes losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor

from mhrctl.data.batches import Batch
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.losses import token_losses
from mhrctl.training.losses import choice_scores, multiple_choice_losses, run_losses, unlikelihood_losses


@dataclass(frozen=True)
class Objective:
    """An objective says how a batch becomes losses.

    Attributes:
        kind: see `run_losses`.
        label_smoothing: of the cross-entropy of the targets.
        mc_weight: of T-Few's multiple-choice loss over answer choices.
        unlikelihood_weight: of T-Few's unlikelihood loss of wrong choices.
        length_norm: of the choices' scores.
    """

    kind: str
    label_smoothing: float
    mc_weight: float = 0.0
    unlikelihood_weight: float = 0.0
    length_norm: float = 1.0

    @property
    def reads_choices(self) -> bool:
        """Whether batches must hold the answer choices."""
        return self.mc_weight > 0 or self.unlikelihood_weight > 0

    def __call__(self, model: Callable[..., Tensor], batch: Batch, *, runs: int) -> Tensor:
        """Losses of a batch, [runs]."""
        rows = len(batch.choices)
        if len(batch.labels) == rows:
            losses = self.token_losses(model, batch, label_smoothing=self.label_smoothing)
            return run_losses(losses, batch.labels, runs=runs, kind=self.kind)
        labels = batch.labels.view(rows, -1, batch.labels.shape[-1])
        gold = torch.arange(rows, device=labels.device) * labels.shape[1] + batch.gold
        if self.label_smoothing:  # of the targets alone
            logits = self.logits(model, batch)
            of_gold = token_losses(logits[gold], batch.labels[gold], label_smoothing=self.label_smoothing)
            by_token = token_losses(logits, batch.labels)
        else:
            by_token = self.token_losses(model, batch)
            of_gold = by_token[gold]
        losses = run_losses(of_gold, batch.labels[gold], runs=runs, kind=self.kind)
        by_token = by_token.view_as(labels)
        if self.mc_weight:
            scores = choice_scores(by_token, labels, batch.choices, length_norm=self.length_norm)
            losses = losses + self.mc_weight * multiple_choice_losses(scores, batch.gold, runs=runs)
        if self.unlikelihood_weight:
            unlikelihood = unlikelihood_losses(by_token, labels, batch.choices, batch.gold, runs=runs)
            losses = losses + self.unlikelihood_weight * unlikelihood
        return losses

    def of_logits(self, logits: Tensor, batch: Batch, *, runs: int) -> Tensor:
        """Return the losses of a batch for which a model gave these logits, [runs]."""

        def model(*_rows: object, label_smoothing: float = 0.0, with_logits: bool = False) -> Tensor:
            return logits if with_logits else token_losses(logits, batch.labels, label_smoothing=label_smoothing)

        return self(model, batch, runs=runs)

    def over_runs(self, losses: Tensor, batch: Batch, *, runs: int) -> Tensor:
        """Return what losses of the tokens of a batch's labels, [label rows, target length], make for each run, [runs]."""
        return run_losses(losses, batch.labels, runs=runs, kind=self.kind)

    def token_losses(self, model: Callable[..., Tensor], batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Compute cross-entropy of each token of a batch's labels, [label rows, target length]; 0 where the label is -100."""
        losses: Tensor = model(batch.task_ids, batch.inputs, batch.targets, label_smoothing=label_smoothing)
        return losses

    def logits(self, model: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Compute the teacher-forced logits of a batch's labels, [label rows, target length, vocabulary]."""
        logits: Tensor = model(batch.task_ids, batch.inputs, batch.targets, with_logits=True)
        return logits

    def logits_and_means(self, model: Callable[..., Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits, and {adapted layer: the mean of what it reads over the tokens of each row, [rows, d_in]}."""
        adapted: AdaptedModel = extract_model_from_parallel(model)
        with adapted.reading(batch.inputs, batch.targets) as means:
            return self.logits(model, batch), means


class LossSettings(Protocol):
    """These settings are of losses: sections of params.yaml have them, and whatever else has these attributes."""

    @property
    def loss(self) -> str:
        """See `run_losses`."""

    @property
    def label_smoothing(self) -> float:
        """Of the cross-entropy of the targets."""

    @property
    def mc_weight(self) -> float:
        """Of T-Few's multiple-choice loss over answer choices."""

    @property
    def unlikelihood_weight(self) -> float:
        """Of T-Few's unlikelihood loss of wrong choices."""

    @property
    def length_norm(self) -> float:
        """Of the choices' scores."""


def objective_of(settings: LossSettings) -> Objective:
    """Make the losses of a stage."""
    return Objective(
        settings.loss,
        settings.label_smoothing,
        mc_weight=settings.mc_weight,
        unlikelihood_weight=settings.unlikelihood_weight,
        length_norm=settings.length_norm,
    )
