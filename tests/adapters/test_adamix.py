"""AdaMix: copies that start as one LoRA, draws, what a step trains, the mean over copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mhrctl.adapters.adamix import AdaMix
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.copies import Consistent
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.training.objective import Objective

SHAPES = {"a.q": (8, 12), "a.v": (8, 12), "b.o": (12, 8)}
COPIES = 3
SHARED = pytest.mark.parametrize("shared", ["A", "B", "none"])


def fresh(shared: str, *, consistency: float = 0.0) -> AdaMix:
    torch.manual_seed(0)
    return AdaMix(SHAPES, InventoryConfig(rank=4, alpha=2.0), copies=COPIES, shared=shared, consistency=consistency)


def trained(shared: str) -> AdaMix:
    adapter = fresh(shared)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


def copies_of(adapter: AdaMix, layer: str, matrix: str) -> list[torch.Tensor]:
    """Each copy of a matrix, as a slot has it."""
    bank = adapter.tensors()[f"{layer}.lora_{matrix}"][0, 0]
    return [copy.T if matrix == "A" else copy * adapter.scaling for copy in bank]


@SHARED
def test_copies_start_as_one_lora(shared: str) -> None:
    torch.manual_seed(0)
    plain = Inventory(SHAPES, InventoryConfig(rank=4, alpha=2.0))
    adapter = fresh(shared)
    for layer in SHAPES:
        for matrix in "AB":
            copies = copies_of(adapter, layer, matrix)
            assert len(copies) == (1 if matrix == shared else COPIES)
            slot = plain()[f"{layer}.{'down' if matrix == 'A' else 'up'}"][0]
            assert all(torch.equal(copy, slot) for copy in copies)


@SHARED
def test_a_step_draws_a_copy_of_each_matrix_for_each_layer_and_trains_it_alone(shared: str) -> None:
    adapter = trained(shared).train()
    seen: set[tuple[int, ...]] = set()
    for seed in range(40):
        torch.manual_seed(seed)
        adapter.zero_grad()
        slots = adapter()
        sum(slot.square().sum() for slot in slots.values()).backward()
        drawn = []
        for place, names in enumerate(adapter.stacks.values()):
            for layer, name in enumerate(names):
                for matrix, bank in (("A", adapter.lora_A[place]), ("B", adapter.lora_B[place])):
                    slot = slots[f"{name}.{'down' if matrix == 'A' else 'up'}"][0]
                    (number,) = [n for n, copy in enumerate(copies_of(adapter, name, matrix)) if torch.equal(copy, slot)]
                    assert bank.grad is not None
                    assert bank.grad[0, layer, 0].flatten(1).any(1).nonzero().tolist() == [[number]]
                    drawn.append(number)
        seen.add(tuple(drawn))
    for place, numbers in enumerate(zip(*seen, strict=True)):
        assert set(numbers) == ({0} if "AB"[place % 2] == shared else set(range(COPIES)))
    pairs = {one == other for of_step in seen for one, other in zip(of_step[::2], of_step[1::2], strict=True)}
    assert shared != "none" or pairs == {True, False}  # A and B are drawn apart


@SHARED
def test_evaluation_and_the_average_are_the_mean_over_copies(shared: str) -> None:
    adapter = trained(shared).eval()
    average, slots = adapter.average(), adapter()
    assert type(average) is Inventory
    for layer in SHAPES:
        for matrix, slot in (("A", "down"), ("B", "up")):
            mean = torch.stack(copies_of(adapter, layer, matrix)).mean(0)
            torch.testing.assert_close(slots[f"{layer}.{slot}"][0], mean)
            torch.testing.assert_close(average()[f"{layer}.{slot}"][0], mean)
    new = adapter.for_new_tasks([1, 2], train_skills=True)
    assert type(new) is Inventory
    assert all(torch.equal(slot[1:], average()[name]) for name, slot in new().items())


@SHARED
def test_a_file_brings_back_every_copy(shared: str, tmp_path: Path) -> None:
    adapter = trained(shared)
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    back = load_adapter(tmp_path / "adapter.safetensors")
    assert isinstance(back, AdaMix)
    assert json.loads(json.dumps(back.settings())) == json.loads(json.dumps(adapter.settings()))
    for name, tensor in adapter.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name


def test_two_draws_are_to_agree() -> None:
    plain = Objective("token_mean", 0.0)
    assert fresh("B").objective(plain) is plain
    assert fresh("B", consistency=0.7).objective(plain) == Consistent(plain, 0.7)


def test_what_it_can_do_is_said_by_its_class() -> None:
    adapter = fresh("B")
    assert adapter.averageable
    assert adapter.composed().rank == adapter.rank
    assert (adapter.routes_by, adapter.tasks) == ("none", 0)
    assert not adapter.exports_to
    assert not adapter.has_alignment
