"""Copies of a LoRA: what two draws disagree in is a loss, and a new task starts from their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.mosa import MoSA
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training.objective import Objective
from tests.adapters.test_mosa import mixture, moved


def tiny_batch() -> Batch:
    rows = ([3, 4, 5], [6, 7, 1]), ([8, 9], [10, 1])
    return collate([Sample(0, np.array(ids), np.array(target)) for ids, target in rows], [[0, 0]])


@pytest.mark.parametrize("kind", ["token_mean", "example_sum"])
def test_the_consistency_term_is_half_of_both_divergences(tiny_t5: T5ForConditionalGeneration, kind: str) -> None:
    torch.manual_seed(0)
    adapter = MoSA(inject(tiny_t5, ["q", "v"]), InventoryConfig(rank=4), copies=2, sparse="full", consistency=0.7).train()
    moved(adapter)
    model, batch = AdaptedModel(tiny_t5, adapter), tiny_batch()
    plain = Objective(kind, 0.1)
    torch.manual_seed(3)
    loss = adapter.objective(plain)(model, batch, runs=1).sum()
    ours = torch.autograd.grad(loss, list(adapter.parameters()))
    torch.manual_seed(3)
    first, second = (F.log_softmax(plain.logits(model, batch), -1) for _ in range(2))
    torch.manual_seed(3)
    alone = plain(model, batch, runs=1).sum()
    towards_first = (first.detach().exp() * (first.detach() - second)).sum(-1)  # the side that is held fixed has no gradient
    towards_second = (second.detach().exp() * (second.detach() - first)).sum(-1)
    both = (towards_first + towards_second)[batch.labels >= 0]
    divergence = both.mean() / 2 if kind == "token_mean" else both.sum() / 2 / 2
    assert divergence > 1e-4
    expected = alone + 0.7 * divergence
    torch.testing.assert_close(loss, expected)
    for gradient, reference in zip(ours, torch.autograd.grad(expected, list(adapter.parameters())), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_without_consistency_the_losses_are_as_they_were() -> None:
    plain = Objective("token_mean", 0.0)
    assert mixture().objective(plain) is plain


def test_adaptation_starts_from_the_average() -> None:
    adapter = moved(mixture())
    new = adapter.for_new_tasks([1, 2], train_skills=True)
    assert type(new) is Inventory
    assert new.runs == 2
    for bank, merged in zip(new.parameters(), adapter.average().parameters(), strict=True):
        assert all(torch.equal(run, merged[0]) for run in bank)
