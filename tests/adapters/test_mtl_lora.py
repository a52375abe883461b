"""MTL-LoRA: the formula written out for each task, how it starts, the mean of tasks, files and adaptation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.mtl_lora import MTLLoRA

SHAPES = {"a.q": (8, 12), "a.v": (8, 12), "b.o": (12, 8)}
TASKS, UPS, RANK, TEMPERATURE, SCALING = 4, 3, 2, 0.5, 4.0


def fresh() -> MTLLoRA:
    torch.manual_seed(0)
    config = InventoryConfig(rank=RANK, alpha=SCALING * RANK)
    return MTLLoRA(SHAPES, config, ups=UPS, temperature=TEMPERATURE, tasks=TASKS)


def trained() -> MTLLoRA:
    adapter = fresh()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


def update(tensors: dict[str, Tensor], layer: str, transform: Tensor, mixing: Tensor, x: Tensor) -> Tensor:
    """(alpha / r) sum_i softmax(w / tau)_i B_i L A x, term by term, of one run."""
    a, b = tensors[f"{layer}.lora_A"][0, 0, 0].T, tensors[f"{layer}.lora_B"][0, 0].mT  # [r, d_in], [n, d_out, r]
    weights = (mixing / TEMPERATURE).softmax(0)
    return SCALING * sum((weight * (up @ transform @ a @ x) for weight, up in zip(weights, b, strict=True)), torch.zeros(()))


def given(adapter: Inventory, layer: str, group: int, x: Tensor, ids: Tensor | None = None) -> Tensor:
    slots = adapter(ids)
    update: Tensor = slots[f"{layer}.up"][group].T @ slots[f"{layer}.down"][group] @ x
    return update


@pytest.mark.parametrize("layer", list(SHAPES))
def test_a_group_has_the_mixture_of_its_task(layer: str) -> None:
    adapter, x = trained(), torch.randn(SHAPES[layer][0])
    tensors, ids = adapter.tensors(), [2, 0, 2]
    for group, task in enumerate(ids):
        parts = tensors[f"{layer}.transform"][0, task], tensors[f"{layer}.mixing"][0, task]
        torch.testing.assert_close(
            given(adapter, layer, group, x, torch.tensor([ids])), update(tensors, layer, *parts, x), rtol=1e-4, atol=1e-5
        )


def test_gradients_reach_what_all_share_and_the_tasks_of_the_batch_alone() -> None:
    adapter = trained()
    sum(slot.square().sum() for slot in adapter(torch.tensor([[1, 3]])).values()).backward()
    assert all(bank.grad is not None and bank.grad.any() for bank in adapter.banks())
    for parts in (adapter.transforms, adapter.mixings):
        assert parts.grad is not None
        assert parts.grad[:, :, [1, 3]].flatten(3).any(-1).all()
        assert not parts.grad[:, :, [0, 2]].any()


def test_all_tasks_start_as_one_lora_that_adds_nothing() -> None:
    adapter = fresh()
    assert all(not bank.any() for bank in adapter.lora_B)
    assert torch.equal(adapter.transforms, torch.eye(RANK).expand_as(adapter.transforms))
    bound = 1 / math.sqrt(UPS)
    assert 0.8 * bound < adapter.mixings.abs().max() <= bound
    slots = adapter(torch.tensor([[0, 1]]))
    assert torch.equal(slots["a.q.down"][0], slots["a.q.down"][1])


def test_one_b_and_identities_are_a_plain_lora() -> None:
    torch.manual_seed(0)
    adapter = MTLLoRA(SHAPES, InventoryConfig(rank=RANK), ups=1, temperature=1.0)
    plain = Inventory(SHAPES, InventoryConfig(rank=RANK))
    with torch.no_grad():
        for bank, target in zip(adapter.banks(), plain.banks(), strict=True):
            target.copy_(bank.normal_())
    for (name, slot), expected in zip(adapter(torch.tensor([[0]])).items(), plain().values(), strict=True):
        torch.testing.assert_close(slot, expected, msg=name)


@pytest.mark.parametrize("layer", list(SHAPES))
def test_the_average_is_the_lora_of_the_mean_task(layer: str) -> None:
    adapter, x = trained(), torch.randn(SHAPES[layer][0])
    tensors, average = adapter.tensors(), adapter.average()
    assert type(average) is Inventory
    assert trainable(average.parameters()) == trainable(adapter.like_average().parameters())
    means = tensors[f"{layer}.transform"][0].mean(0), tensors[f"{layer}.mixing"][0].mean(0)
    torch.testing.assert_close(given(average, layer, 0, x), update(tensors, layer, *means, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trains", [True, False])
def test_new_tasks_start_from_the_mean_task_and_leave_as_plain_loras(trains: bool, tmp_path: Path) -> None:
    adapter = trained()
    new, average = adapter.for_new_tasks([5, 6], train_skills=trains), adapter.average()
    assert (new.runs, new.tasks) == (2, 1)
    assert {bank.requires_grad for bank in new.banks()} == {trains}
    assert new.transforms.requires_grad
    ids = torch.zeros(2, 1, dtype=torch.long)
    for name, slot in average().items():
        torch.testing.assert_close(new(ids)[name], slot.expand(2, -1, -1), msg=name)
    with torch.no_grad():
        new.transforms[1].normal_()
        new.mixings[1].normal_()
    save_adapter(new, tmp_path / "adapter.safetensors")
    for each in (new, load_adapter(tmp_path / "adapter.safetensors")):
        composed = each.composed()
        assert type(composed) is Inventory
        for name, slot in new(ids).items():
            torch.testing.assert_close(composed()[name], slot, msg=name)
            torch.testing.assert_close(each.select([1])(ids[:1])[name][0], slot[1], msg=name)


def test_a_file_brings_back_every_task(tmp_path: Path) -> None:
    adapter = trained()
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    back = load_adapter(tmp_path / "adapter.safetensors")
    assert isinstance(back, MTLLoRA)
    assert json.loads(json.dumps(back.settings())) == json.loads(json.dumps(adapter.settings()))
    for name, tensor in adapter.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name


def test_it_needs_tasks() -> None:
    with pytest.raises(ValueError, match="needs task_ids"):
        fresh()()


def test_what_it_can_do_is_said_by_its_class() -> None:
    adapter = fresh()
    assert (adapter.routes_by, adapter.averageable, adapter.foldable, adapter.tasks) == ("task", True, False, TASKS)
    assert not adapter.routing_parameters()
    assert not adapter.exports_to
    assert not adapter.has_alignment
