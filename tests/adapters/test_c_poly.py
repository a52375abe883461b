"""C-Poly: Poly and a second LoRA, written out for each task; new tasks bring skills of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.c_poly import CPoly
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.routing import normalised

SHAPES = {"a.q": (8, 12), "a.v": (8, 12), "b.o": (12, 8)}
TASKS, SKILLS, RANK, SCALING = 4, 3, 2, 4.0
OF_EACH = pytest.mark.parametrize("private", [1, 2])


def config(**more: object) -> InventoryConfig:
    return InventoryConfig(skills=SKILLS, rank=RANK, alpha=SCALING * RANK, **more)  # type: ignore[arg-type]


def fresh(private: int = 2, **more: object) -> CPoly:
    torch.manual_seed(0)
    return CPoly(SHAPES, config(**more), private_skills=private, tasks=TASKS)


def trained(private: int = 2, **more: object) -> CPoly:
    adapter = fresh(private, **more)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


def common(adapter: CPoly) -> Inventory:
    """Poly with the common skills."""
    poly = Inventory(SHAPES, adapter.config, tasks=TASKS)
    poly.fill(adapter.tensors())
    return poly


def update(slots: dict[str, Tensor], layer: str, group: int) -> Tensor:
    return slots[f"{layer}.up"][group].T @ slots[f"{layer}.down"][group]


@OF_EACH
@pytest.mark.parametrize("granularity", ["layer", "model"])
def test_a_group_has_what_poly_gives_and_the_skills_of_its_task(private: int, granularity: str) -> None:
    adapter, ids = trained(private, granularity=granularity), torch.tensor([[2, 0, 2]])
    slots, of_poly, tensors = adapter(ids), common(adapter)(ids), adapter.tensors()
    for layer in SHAPES:
        for group, task in enumerate(ids[0].tolist()):
            a, b = (tensors[f"{layer}.private_{matrix}"][0, task] for matrix in "AB")
            weights = torch.ones(1)
            if private > 1:
                weights = normalised(tensors[f"{adapter.part_of[layer]}.private_routing"][0, task].sigmoid())
            mixed_a, mixed_b = (torch.einsum("k,kij->ij", weights, skills) for skills in (a, b))
            expected = update(of_poly, layer, group) + SCALING * (mixed_a @ mixed_b).T
            torch.testing.assert_close(update(slots, layer, group), expected, rtol=1e-4, atol=1e-5)


def test_before_it_is_trained_it_is_poly() -> None:
    adapter, ids = fresh(), torch.tensor([[1, 3]])
    with torch.no_grad():
        for bank in adapter.lora_B:
            bank.normal_()
    for layer in SHAPES:
        torch.testing.assert_close(update(adapter(ids), layer, 1), update(common(adapter)(ids), layer, 1))


def test_the_common_routing_is_sampled_while_training_as_polys_is() -> None:
    adapter, ids = trained(temperature=0.5).train(), torch.tensor([[1, 3]])
    poly = common(adapter).train()
    torch.manual_seed(4)
    slots = adapter(ids)
    torch.manual_seed(4)
    expected = poly(ids)
    for name, slot in expected.items():
        assert torch.equal(slots[name][:, :RANK], slot), name


def test_a_task_trains_its_private_skills_alone() -> None:
    adapter = trained()
    sum(slot.square().sum() for slot in adapter(torch.tensor([[1, 3]])).values()).backward()
    assert adapter.private_routing is not None
    for parts in (*adapter.private_A, *adapter.private_B, adapter.private_routing):
        assert parts.grad is not None
        assert parts.grad[:, :, [1, 3]].any()
        assert not parts.grad[:, :, [0, 2]].any()


@OF_EACH
@pytest.mark.parametrize("trains", [True, False])
def test_new_tasks_bring_skills_of_their_own(private: int, trains: bool, tmp_path: Path) -> None:
    adapter, ids = trained(private), torch.zeros(2, 1, dtype=torch.long)
    new, alone = (adapter.for_new_tasks(seeds, train_skills=trains) for seeds in ([5, 6], [6]))
    of_poly = common(adapter).for_new_tasks([5, 6], train_skills=trains)
    assert (new.runs, new.tasks) == (2, 1)
    assert {bank.requires_grad for bank in new.banks()} == {trains}
    assert all(bank.requires_grad for bank in (*new.private_A, *new.private_B, *new.routing_parameters()))
    for layer in SHAPES:  # which add nothing yet, and depend on nothing beside them
        torch.testing.assert_close(update(new(ids), layer, 1), update(of_poly(ids), layer, 1))
    for one, both in zip(alone.private_A, new.private_A, strict=True):
        assert torch.equal(one[0], both[1])
        assert not torch.equal(both[0], both[1])
    with torch.no_grad():
        for bank in (*new.private_B, *new.routing_parameters()):
            bank.normal_()
    save_adapter(new, tmp_path / "adapter.safetensors")
    for each in (new, load_adapter(tmp_path / "adapter.safetensors")):
        composed = each.composed()
        assert type(composed) is Inventory
        assert (composed.rank, composed.scaling) == (2 * RANK, SCALING)
        for name, slot in new.eval()(ids).items():
            torch.testing.assert_close(composed()[name], slot, msg=name)
            torch.testing.assert_close(each.eval().select([1]).eval()(ids[:1])[name][0], slot[1], msg=name)


def test_the_average_is_that_of_the_common_skills() -> None:
    adapter = trained()
    for (name, slot), expected in zip(adapter.average()().items(), common(adapter).average()().values(), strict=True):
        assert torch.equal(slot, expected), name


@OF_EACH
def test_a_file_brings_back_every_task(private: int, tmp_path: Path) -> None:
    adapter = trained(private)
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    back = load_adapter(tmp_path / "adapter.safetensors")
    assert isinstance(back, CPoly)
    assert json.loads(json.dumps(back.settings())) == json.loads(json.dumps(adapter.settings()))
    assert back.tensors().keys() == adapter.tensors().keys()
    for name, tensor in adapter.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name


def test_what_it_can_do_is_said_by_its_class() -> None:
    adapter = fresh(1)
    assert (adapter.routes_by, adapter.averageable, adapter.foldable, adapter.tasks) == ("task", True, False, TASKS)
    assert adapter.routing_parameters() == [adapter.routing]
    assert len(fresh(2).routing_parameters()) == 2
    assert not adapter.exports_to
    assert not adapter.has_alignment
