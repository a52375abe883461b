"""Losses by hand and against torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mhrctl.training.losses import run_losses

LABELS = torch.tensor([[1, 2, -100], [3, -100, -100], [0, 1, 2], [4, 4, -100]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_runs_have_losses_of_their_own(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5)
    means = run_losses(logits, LABELS, runs=2, kind="token_mean", label_smoothing=smoothing)
    sums = run_losses(logits, LABELS, runs=2, kind="example_sum", label_smoothing=smoothing)
    for run, rows in enumerate((slice(0, 2), slice(2, 4))):
        whole = F.cross_entropy(logits[rows].flatten(0, 1), LABELS[rows].flatten(), label_smoothing=smoothing)
        torch.testing.assert_close(means[run], whole)
        torch.testing.assert_close(sums[run], whole * (LABELS[rows] != -100).sum() / 2)


def test_smoothing_is_the_recipes_label_smoothed_nll() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 1, 5), torch.tensor([[3]])
    log_probabilities = logits[0, 0].log_softmax(-1)
    by_hand = -(0.9 * log_probabilities[3] + 0.1 / 5 * log_probabilities.sum())
    torch.testing.assert_close(run_losses(logits, labels, runs=1, kind="token_mean", label_smoothing=0.1)[0], by_hand)
