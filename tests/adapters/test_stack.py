"""A stack against a backbone whose weights have the lower adapter in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5ForConditionalGeneration

from mhrctl.adapters.adapter import Adapter, trainable
from mhrctl.adapters.build import build_adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.stack import Stack, load_lower, over
from mhrctl.config.methods import METHODS, Method
from mhrctl.config.sections import PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, find_layers, linear_shapes
from mhrctl.models.folding import folded
from mhrctl.training.optimizers import optimizer_of, trained_parameters
from tests.adapters.test_inventory import randomised
from tests.models.made import logits_of

IDS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]])
TARGETS = IDS[:, :3]
LOWER, UPPER = InventoryConfig(rank=2, alpha=6), InventoryConfig(rank=3, alpha=1)


def lora(model: torch.nn.Module, targets: list[str], config: InventoryConfig, *, tasks: int = 1, runs: int = 1) -> Inventory:
    return randomised(Inventory(find_layers(linear_shapes(model), targets), config, tasks=tasks, runs=runs))


def with_lower(model: T5ForConditionalGeneration, under: Adapter) -> T5ForConditionalGeneration:
    """A copy of a model that has the lower adapter in its weights."""
    changed = copy.deepcopy(model)
    under.put_into(changed)
    return changed


def logits(model: T5ForConditionalGeneration, adapter: Adapter, task_ids: Tensor | None = None) -> Tensor:
    model = copy.deepcopy(model)
    attach(model, adapter)
    return logits_of(AdaptedModel(model, adapter).eval(), task_ids, IDS, TARGETS)


def test_each_layer_gives_the_sum_of_both(tiny_t5: T5ForConditionalGeneration) -> None:
    under, upper = lora(tiny_t5, ["q", "v"], LOWER), lora(tiny_t5, ["v", "wo"], UPPER)
    expected = logits(with_lower(tiny_t5, under), upper)
    stack = Stack(under, upper)
    assert {name.rpartition(".")[2] for name in stack.shapes} == {"q", "v", "wo"}
    torch.testing.assert_close(logits(tiny_t5, stack), expected)
    assert not torch.allclose(logits(tiny_t5, upper), expected)
    torch.testing.assert_close(logits(tiny_t5, Stack(upper, under)), expected)


@pytest.mark.parametrize("skills", [1, 3])
def test_each_run_and_group_has_the_lower_one(tiny_t5: T5ForConditionalGeneration, skills: int) -> None:
    config = InventoryConfig(rank=3, skills=skills, heads=4 if skills > 1 else 1)
    under, upper = lora(tiny_t5, ["q", "v"], LOWER), lora(tiny_t5, ["v", "wo"], config, tasks=2)
    new = Stack(under, upper).for_new_tasks([1, 2], train_skills=True)
    assert new.runs == 2
    both = torch.zeros(2, 1, dtype=torch.long)
    changed = with_lower(tiny_t5, under)
    torch.testing.assert_close(logits(tiny_t5, new, both), logits(changed, new.top, both))
    torch.testing.assert_close(logits(tiny_t5, new.select([1]), both[:1]), logits(changed, new.top.select([1]), both[:1]))
    groups = torch.tensor([[1, 0]])
    if skills > 1:
        torch.testing.assert_close(logits(tiny_t5, Stack(under, upper), groups), logits(changed, upper, groups))
        torch.testing.assert_close(logits(tiny_t5, Stack(under, upper).average()), logits(changed, upper.average()))


@pytest.mark.parametrize(
    "row", [row for row in METHODS.values() if row.pretrain == row.name and row.can_be_stacked], ids=lambda row: row.name
)
def test_every_method_that_can_be_stacked_has_the_lower_one(tiny_t5: T5ForConditionalGeneration, row: Method) -> None:
    shapes = find_layers(linear_shapes(tiny_t5), ["v", "wo"])
    settings = PretrainParams(steps=0, batch_size=1, rank=2, skills=2)
    upper = build_adapter(row, settings, shapes, tiny_t5, heads=2 if row.multi_head else 1, tasks=3)
    under = lora(tiny_t5, ["q", "v"], LOWER)
    if not upper.is_low_rank:
        with pytest.raises(ParamsError, match=f"LoRAs alone are stacked, and not {upper.kind}"):
            Stack(under, upper)
        return
    with torch.no_grad():
        for parameter in upper.skill_parameters():
            parameter.normal_()
    stack, ids = Stack(under, upper).eval(), torch.tensor([[2, 0]])
    new = stack.for_new_tasks([4, 5], train_skills=True)
    pairs = ((stack, upper), (stack.average(), upper.average()), (new, new.top), (new.composed(), new.composed().top))
    for one, other in pairs:
        given = ids if one is stack else torch.zeros(2, 1, dtype=torch.long)
        slots, alone, below = one.eval()(given), other.eval()(given), under()
        for name in other.shapes:
            added = product(below, name) if name in under.shapes else 0
            torch.testing.assert_close(product(slots, name), product(alone, name) + added)
    assert (new.runs, stack.tasks) == (2, upper.tasks)


def product(slots: Mapping[str, Tensor], name: str) -> Tensor:
    """The update of a layer for each group."""
    return slots[f"{name}.up"].mT @ slots[f"{name}.down"]


def test_joined_they_are_one_lora_of_both_ranks(tiny_t5: T5ForConditionalGeneration) -> None:
    under, upper = lora(tiny_t5, ["q", "v"], LOWER), lora(tiny_t5, ["v", "wo"], UPPER, runs=2)
    stack = Stack(under, upper)
    joined = stack.joined()
    assert (joined.rank, joined.runs, joined.scaling) == (5, 2, 1)
    torch.testing.assert_close(logits(tiny_t5, joined), logits(tiny_t5, stack))
    with pytest.raises(ValueError, match="routed"):
        Stack(under, lora(tiny_t5, ["v"], InventoryConfig(skills=2))).joined()


def test_a_stack_is_folded_as_one_adapter(tiny_t5: T5ForConditionalGeneration) -> None:
    stack = Stack(lora(tiny_t5, ["q", "v"], LOWER), lora(tiny_t5, ["v", "wo"], UPPER))
    expected = logits(tiny_t5, stack)
    attach(tiny_t5, stack)
    with folded(tiny_t5, stack):
        torch.testing.assert_close(logits_of(AdaptedModel(tiny_t5, None).eval(), None, IDS, TARGETS), expected)


def test_the_upper_one_alone_is_trained_as_on_changed_weights(tiny_t5: T5ForConditionalGeneration) -> None:
    under, upper = lora(tiny_t5, ["q", "v"], LOWER), lora(tiny_t5, ["v", "wo"], UPPER)
    alone, before = copy.deepcopy(upper), [parameter.clone() for parameter in under.parameters()]
    stack = Stack(under, upper)
    assert trainable(trained_parameters(stack).values()) == trainable(upper.parameters())
    for adapter, model in ((alone, with_lower(tiny_t5, under)), (stack, tiny_t5)):
        attach(model, adapter)
        adapted = AdaptedModel(model, adapter).train()
        logits_of(adapted, None, IDS, TARGETS).square().mean().backward()
    for one, other in zip(alone.parameters(), upper.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    optimizer = optimizer_of(stack, _Settings(), fused=False)
    optimizer.step()
    assert all(torch.equal(now, then) for now, then in zip(under.parameters(), before, strict=True))
    assert not torch.equal(next(upper.parameters()), next(alone.parameters()))
    assert not under.training


class _Settings:
    optimizer, lr, routing_lr, weight_decay, scale_parameter = "adamw", 0.1, 0.1, 0.1, False


def test_files_hold_the_upper_one(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    upper = lora(tiny_t5, ["v", "wo"], UPPER)
    stack = Stack(lora(tiny_t5, ["q", "v"], LOWER), upper)
    save_adapter(stack, tmp_path / "adapters.safetensors")
    read = load_adapter(tmp_path / "adapters.safetensors")
    assert read.shapes == upper.shapes
    assert all(torch.equal(tensor, read.tensors()[name]) for name, tensor in upper.tensors().items())
    stack.fill({name: torch.zeros_like(tensor) for name, tensor in stack.tensors().items()})
    assert not any(parameter.any() for parameter in upper.parameters())


def test_what_is_no_single_lora_is_refused(tiny_t5: T5ForConditionalGeneration) -> None:
    plain, scales = lora(tiny_t5, ["v"], UPPER), Scales(find_layers(linear_shapes(tiny_t5), ["v"]))
    with pytest.raises(ParamsError, match="LoRAs alone are stacked, and not ia3"):
        Stack(scales, plain)
    with pytest.raises(ParamsError, match="LoRAs alone are stacked, and not ia3"):
        Stack(plain, scales)
    with pytest.raises(ParamsError, match="without a routing"):
        Stack(lora(tiny_t5, ["v"], InventoryConfig(skills=2)), plain)
    assert over(None, plain) is plain
    assert load_lower(None, "") is None


@pytest.mark.parametrize("packs", [False, True])
def test_a_causal_model_has_the_sum_of_both_too(packs: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=64)
    config.pad_token_id = 0
    model: Any = LlamaForCausalLM(config).eval()
    model.PACKS = packs
    under = lora(model, ["q_proj", "up_proj"], LOWER)
    upper = lora(model, ["q_proj", "v_proj"], InventoryConfig(skills=2), tasks=2)
    groups = torch.tensor([[1, 0]])
    torch.testing.assert_close(logits(model, Stack(under, upper), groups), logits(with_lower(model, under), upper, groups))
