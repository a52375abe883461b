"""A router's mixture of adapters does what the sum of their outputs would, and with one adapter what that does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import Pool, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import Ragged
from mhrctl.data.routes import Mixture, Routes
from mhrctl.evaluation import router as module
from mhrctl.evaluation.router import Router
from mhrctl.models.attach import inject
from mhrctl.training.execution import Execution
from tests.adapters.test_inventory import randomised

MIXTURES: list[Mixture] = [[(2, 1.0)], [(1, 0.75), (0, 0.25)], [(3, 0.5), (2, 0.3), (1, 0.2)], [(0, 1.0)]]


class Given:
    """Routes that are given, whatever the queries are."""

    def of(self, task: str, texts: Sequence[str]) -> list[Mixture]:
        assert task == "any"
        return [MIXTURES[int(text)] for text in texts]


@pytest.fixture
def pool(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> Inventory:
    """Four LoRAs of a T5 with slots for them, also in `pool.safetensors`."""
    shapes = inject(tiny_t5, ["q", "v", "wo"])
    adapters = randomised(Inventory(shapes, InventoryConfig(rank=2, alpha=3.0), runs=4))
    save_adapter(adapters, tmp_path / "pool.safetensors")
    return adapters


def routed(path: Path, queries: Sequence[str]) -> dict[int, dict[str, Tensor]]:
    """{place of a query: the slots of its adapter}."""
    router = Router(cast("Routes", Given()), Pool(path))
    slots: dict[int, dict[str, Tensor]] = {}
    for places, adapter in router.composed(["any"] * len(queries), queries):
        of_runs = adapter()
        slots |= {place: {name: slot[run] for name, slot in of_runs.items()} for run, place in enumerate(places)}
    return slots


def logits(model: T5ForConditionalGeneration, adapter: Inventory, accelerator: Accelerator) -> Tensor:
    inputs, targets = Ragged.of([torch.tensor([5, 6, 7, 1]).numpy()]), Ragged.of([torch.tensor([8, 9, 1]).numpy()])
    with torch.no_grad():
        said: Tensor = Execution(accelerator).adapted(model, adapter)(
            torch.zeros(1, 1, dtype=torch.long), inputs, targets, with_logits=True
        )
    return said


def test_a_mixture_is_the_sum_of_outputs(pool: Inventory, tmp_path: Path) -> None:
    alone, random = pool(), torch.Generator().manual_seed(3)
    slots = routed(tmp_path / "pool.safetensors", ["0", "1", "2", "3"])
    assert sorted(slots) == [0, 1, 2, 3]
    for place, mixture in enumerate(MIXTURES):
        for layer, (d_in, _) in pool.shapes.items():
            x = torch.randn(5, d_in, generator=random)
            outputs = [weight * (x @ alone[f"{layer}.down"][each].T) @ alone[f"{layer}.up"][each] for each, weight in mixture]
            mixed = (x @ slots[place][f"{layer}.down"].T) @ slots[place][f"{layer}.up"]
            torch.testing.assert_close(mixed, torch.stack(outputs).sum(0), rtol=0, atol=1e-6)


def test_one_adapter_with_weight_1_is_that_adapter(pool: Inventory, tmp_path: Path) -> None:
    alone, slots = pool(), routed(tmp_path / "pool.safetensors", ["3", "0"])
    for name, slot in alone.items():
        assert torch.equal(slots[0][name], slot[0])
        assert torch.equal(slots[1][name], slot[2])


def test_one_adapter_gives_its_logits(
    pool: Inventory, tiny_t5: T5ForConditionalGeneration, tmp_path: Path, accelerator: Accelerator
) -> None:
    router = Router(cast("Routes", Given()), Pool(tmp_path / "pool.safetensors"))
    ((_, adapter),) = router.composed(["any"], ["0"])
    assert isinstance(adapter, Inventory)
    said = logits(tiny_t5, adapter, accelerator)
    assert torch.equal(said, logits(tiny_t5, pool.select([2]), accelerator))
    assert not torch.equal(said, logits(tiny_t5, pool.select([1]), accelerator))


@pytest.mark.parametrize("rows", [1, 3])
def test_neither_batches_nor_where_the_pool_is_change_a_mixture(
    pool: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    queries = ["2", "0", "1", "3", "1"]
    whole = routed(tmp_path / "pool.safetensors", queries)
    monkeypatch.setattr("mhrctl.adapters.files.IN_MEMORY", 0)
    monkeypatch.setattr(module, "BATCH_ROWS", rows)
    parts = routed(tmp_path / "pool.safetensors", queries)
    for place in range(len(queries)):
        for layer in pool.shapes:
            first, other = (each[place][f"{layer}.up"].T @ each[place][f"{layer}.down"] for each in (whole, parts))
            torch.testing.assert_close(first, other, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("pool")
def test_a_batch_has_the_numbers_that_memory_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(cast("Routes", Given()), Pool(tmp_path / "pool.safetensors"))
    monkeypatch.setattr(module, "NUMBERS", 2 * 3 * router.pool.numbers)
    assert [len(places) for places, _ in router.composed(["any"] * 5, ["2", "0", "1", "3", "2"])] == [2, 2, 1]
