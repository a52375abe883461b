"""Training losses, one a run."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mhrctl.training.data import IGNORED


def run_losses(logits: Tensor, labels: Tensor, *, runs: int, kind: str, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each run's part of a batch.

    Args:
        logits: [rows, length, vocabulary].
        labels: [rows, length]; -100 is not counted.
        runs: the rows are this many equal consecutive parts.
        kind: `token_mean` (mean over a run's target tokens: T0's recipe) or `example_sum` (sum over its tokens divided by
            its number of examples: Super-NaturalInstructions').
        label_smoothing: part of the target mass that is spread over the vocabulary.

    Returns:
        [runs].
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="none",
    ).view(runs, -1)
    if kind == "token_mean":
        return losses.sum(1) / (labels != IGNORED).view(runs, -1).sum(1)
    return losses.sum(1) / (len(labels) // runs)
