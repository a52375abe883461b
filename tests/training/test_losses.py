"""Losses by hand and against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mhrctl.models.losses import token_losses
from mhrctl.training.losses import choice_scores, multiple_choice_losses, run_losses, unlikelihood_losses

LABELS = torch.tensor([[1, 2, -100], [3, -100, -100], [0, 1, 2], [4, 4, -100]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_runs_have_losses_of_their_own(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5)
    losses = token_losses(logits, LABELS, label_smoothing=smoothing)
    means = run_losses(losses, LABELS, runs=2, kind="token_mean")
    sums = run_losses(losses, LABELS, runs=2, kind="example_sum")
    for run, rows in enumerate((slice(0, 2), slice(2, 4))):
        whole = F.cross_entropy(logits[rows].flatten(0, 1), LABELS[rows].flatten(), label_smoothing=smoothing)
        torch.testing.assert_close(means[run], whole)
        torch.testing.assert_close(sums[run], whole * (LABELS[rows] != -100).sum() / 2)


def t_few(losses: Tensor, labels: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """L_MC and L_UL of one run as docs/recipe.md, section 1.5 writes them, with loops."""
    scores = torch.stack(
        [
            torch.stack([row[choice != -100].sum() / (choice != -100).sum() for row, choice in zip(rows, choices, strict=True)])
            for rows, choices in zip(losses, labels, strict=True)
        ]
    )
    mc = F.cross_entropy(-scores, gold)
    total, count = torch.tensor(0.0), 0
    for row, right in enumerate(gold.tolist()):
        for choice in range(labels.shape[1]):
            for position in range(labels.shape[2]):
                counted = choice != right and labels[row, choice, position] != -100
                ll = -losses[row, choice, position] if counted else torch.tensor(-100.0)
                total = total - torch.log(1 - torch.exp(ll) + 1e-2)
                count += int(counted)
    return mc, total / count


def choice_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Two rows of three choices, of four tokens at most."""
    rows = [["561", "71", "8881"], ["41", "51", "661"]]
    labels = torch.tensor([[[*map(int, text), *[-100] * (4 - len(text))] for text in row] for row in rows])
    torch.manual_seed(0)
    return torch.rand(2, 3, 4).masked_fill(labels == -100, 0), labels, torch.tensor([2, 0])


def test_choice_losses_are_t_fews() -> None:
    losses, labels, gold = choice_batch()
    three = torch.tensor([3, 3])
    mc, unlikelihood = t_few(losses, labels, gold)
    scores = choice_scores(losses, labels, three)
    torch.testing.assert_close(multiple_choice_losses(scores, gold, runs=1), mc[None])
    torch.testing.assert_close(unlikelihood_losses(losses, labels, three, gold, runs=1), unlikelihood[None])


def test_choice_losses_of_a_run_do_not_depend_on_the_runs_beside_it() -> None:
    """A run of two choices and short answers beside one of three choices and long answers."""
    losses, labels, gold = choice_batch()
    small, small_labels = torch.rand(2, 2, 2), torch.tensor([[[3, 1], [4, 1]], [[3, 1], [1, -100]]])
    small = small.masked_fill(small_labels == -100, 0)
    small_gold = torch.tensor([0, 1])
    padded, padded_labels = F.pad(small, (0, 2, 0, 1)), F.pad(small_labels, (0, 2, 0, 1), value=-100)
    both = torch.cat([padded, losses]), torch.cat([padded_labels, labels])
    choices, golds = torch.tensor([2, 2, 3, 3]), torch.cat([small_gold, gold])
    together = (
        multiple_choice_losses(choice_scores(*both, choices), golds, runs=2),
        unlikelihood_losses(*both, choices, golds, runs=2),
    )
    for run, alone in enumerate((t_few(small, small_labels, small_gold), t_few(losses, labels, gold))):
        torch.testing.assert_close(torch.stack([loss[run] for loss in together]), torch.stack(alone))


def test_length_norm() -> None:
    losses, labels, _ = choice_batch()
    three, lengths = torch.tensor([3, 3]), (labels != -100).sum(-1)
    torch.testing.assert_close(choice_scores(losses, labels, three, length_norm=0.0), losses.sum(-1))
    torch.testing.assert_close(choice_scores(losses, labels, three, length_norm=0.5), losses.sum(-1) / lengths.sqrt())


def test_a_run_without_wrong_choices_has_no_choice_losses() -> None:
    losses, labels = torch.rand(1, 2, 3), torch.tensor([[[3, 4, 1], [-100, -100, -100]]])
    one, gold = torch.tensor([1]), torch.tensor([0])
    assert unlikelihood_losses(losses, labels, one, gold, runs=1).item() == 0
    assert multiple_choice_losses(choice_scores(losses, labels, one), gold, runs=1).item() == 0
