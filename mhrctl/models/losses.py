"""The loss is the cross-entropy of target tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mhrctl.data.batches import IGNORED


def token_losses(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy of each token, [rows, length]; 0 where the label is -100."""
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return losses.view_as(labels)
