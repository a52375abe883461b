"""Training losses are one a run; answer choices are scored here too: docs/recipe.md, section 1.5."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mhrctl.data.batches import IGNORED

UNLIKELIHOOD_EPS = 1e-2
"""Inside the unlikelihood loss's logarithm, as in T-Few."""


def run_losses(losses: Tensor, labels: Tensor, *, runs: int, kind: str) -> Tensor:
    """Return the loss of each run's part of a batch.

    Args:
        losses: [rows, length], of the tokens.
        labels: likewise; -100 is not counted.
        runs: the rows are this many equal consecutive parts.
        kind: `token_mean` (mean over a run's target tokens: T0's recipe) or `example_sum` (sum over its tokens divided by
            its number of examples: Super-NaturalInstructions').

    Returns:
        [runs].
    """
    losses = losses.view(runs, -1)
    if kind == "token_mean":
        return losses.sum(1) / (labels != IGNORED).view(runs, -1).sum(1)
    return losses.sum(1) / (len(labels) // runs)


def choice_scores(losses: Tensor, labels: Tensor, choices: Tensor, *, length_norm: float = 1.0) -> Tensor:
    """Score answer choices, of which the smallest wins: the summed token losses over the number of tokens ^ length_norm.

    The end token counts as a token.

    Args:
        losses: [rows, choices, length], of the tokens.
        labels: likewise; -100 is no token.
        choices: [rows], how many of the choices are real.
        length_norm: 1 for the mean over tokens, 0 for the sum.

    Returns:
        [rows, choices]; infinite where there is no choice.
    """
    lengths = (labels != IGNORED).sum(-1).clamp(min=1)
    scores = losses.sum(-1) / lengths**length_norm
    return scores.masked_fill(_absent(choices, scores.shape[1]), math.inf)


def multiple_choice_losses(scores: Tensor, gold: Tensor, *, runs: int) -> Tensor:
    """Compute T-Few's L_MC of each run, [runs]: cross-entropy of the gold choice in the softmax of minus the choices' scores.

    Args:
        scores: [rows, choices].
        gold: [rows].
        runs: the rows are this many equal consecutive parts.
    """
    return F.cross_entropy(-scores, gold, reduction="none").view(runs, -1).mean(1)


def unlikelihood_losses(losses: Tensor, labels: Tensor, choices: Tensor, gold: Tensor, *, runs: int) -> Tensor:
    """Compute T-Few's L_UL of each run, [runs]: minus log (1 - p + 0.01) of the tokens of wrong choices, over their number.

    As in T-Few's code, the other positions of a run's choices (padding and gold) stay in the sum, as -log(1.01) each.
    That has no gradient. A run whose rows have no wrong choice has the loss 0.

    Args:
        losses: [rows, choices, length], of the tokens.
        labels: likewise; -100 is no token.
        choices: [rows], how many of the choices are real.
        gold: [rows].
        runs: the rows are this many equal consecutive parts.
    """
    real = labels != IGNORED
    number = torch.arange(labels.shape[1], device=labels.device)
    wrong = real & (number != gold[:, None])[..., None]
    terms = -torch.log(1 - torch.exp(-losses) + UNLIKELIHOOD_EPS) * wrong
    counted = wrong.view(runs, -1).sum(1)
    longest = real.sum(-1).view(runs, -1).amax(1)
    rows = len(labels) // runs
    others = rows * choices.view(runs, -1).amax(1) * longest - counted
    total = terms.view(runs, -1).sum(1) - others * math.log(1 + UNLIKELIHOOD_EPS)
    return torch.where(counted > 0, total / counted.clamp(min=1), torch.zeros_like(total))


def _absent(choices: Tensor, most: int) -> Tensor:
    return torch.arange(most, device=choices.device) >= choices[:, None]
