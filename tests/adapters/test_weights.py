"""Whole weights in place of the backbone's own."""

from __future__ import annotations

import pytest
import torch
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.weights import Weights
from mhrctl.models.adapted import AdaptedModel
from tests.models.made import logits_of


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return logits_of(model, None, ids, ids[:, :3])


def test_a_copy_is_the_same_function_and_gets_the_gradients(tiny_t5: T5ForConditionalGeneration) -> None:
    ids = torch.randint(3, 40, (2, 6))
    bare = AdaptedModel(tiny_t5, None)
    expected = logits(bare, ids)
    expected.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in tiny_t5.named_parameters() if parameter.grad is not None}
    tiny_t5.requires_grad_(requires_grad=False)
    weights = Weights.of(tiny_t5)
    attached = logits(AdaptedModel(tiny_t5, weights), ids)
    assert torch.equal(attached, expected)
    attached.square().sum().backward()
    ours = {name.replace("·", "."): value.grad[0, 0] for name, value in weights.values.items() if value.grad is not None}
    assert ours.keys() == grads.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, grads[name])


def test_put_into_a_backbone_they_are_its_own(tiny_t5: T5ForConditionalGeneration) -> None:
    ids = torch.randint(3, 40, (2, 6))
    weights = Weights.of(tiny_t5)
    with torch.no_grad():
        for value in weights.values.values():
            value.add_(torch.randn_like(value) * 0.1)
    attached = logits(AdaptedModel(tiny_t5, weights), ids)
    weights.put_into(tiny_t5)
    torch.testing.assert_close(logits(AdaptedModel(tiny_t5, None), ids), attached)
    assert tiny_t5.lm_head.weight is tiny_t5.shared.weight


def test_several_runs_cannot_be_attached_at_once(tiny_t5: T5ForConditionalGeneration) -> None:
    two = Weights.of(tiny_t5).for_new_tasks([0, 1], train_skills=True)
    with pytest.raises(ValueError, match="a batch has the whole weights of one run"):
        two()
    assert two.select([1]).runs == 1
