"""The cross-entropy of tokens by hand and against torch."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mhrctl.models.losses import token_losses


def test_smoothing_is_the_recipes_label_smoothed_nll() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 1, 5), torch.tensor([[3]])
    log_probabilities = logits[0, 0].log_softmax(-1)
    by_hand = -(0.9 * log_probabilities[3] + 0.1 / 5 * log_probabilities.sum())
    torch.testing.assert_close(token_losses(logits, labels, label_smoothing=0.1)[0, 0], by_hand)


def test_each_token_has_its_loss_in_fp32_and_padding_none() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [3, -100, 0]])
    losses = token_losses(logits, labels)
    assert losses[labels == -100].tolist() == [0, 0]
    counted = labels != -100
    torch.testing.assert_close(losses[counted], -logits.log_softmax(-1)[counted, labels[counted]])
    of_bf16 = token_losses(logits.bfloat16(), labels)
    assert of_bf16.dtype == torch.float32
    torch.testing.assert_close(of_bf16, F.cross_entropy(logits.bfloat16().float().mT, labels, reduction="none"))
