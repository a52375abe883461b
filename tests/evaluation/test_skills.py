"""LoRAs of a pool that skills begin with: the useful ones, and one of each cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.errors import ParamsError
from mhrctl.evaluation.choosing import Tried
from mhrctl.evaluation.skills import clustered, covering, inner_products, medoids, useful
from mhrctl.progress import silent
from tests.adapters.test_inventory import randomised
from tests.conftest import Run

SHAPES = {"q": (6, 8), "wo": (8, 6)}


def pool_of(vectors: Tensor, path: Path) -> Path:
    """A pool of LoRAs that are multiples of some random ones: a row of `vectors` says how much of which."""
    pool = randomised(Inventory(SHAPES, InventoryConfig(rank=2, alpha=4), runs=len(vectors)))
    with torch.no_grad():
        for a, b in zip(pool.lora_A, pool.lora_B, strict=True):
            a.copy_(a[:1].expand_as(a))  # one A, so that updates add up as their B do
            b.copy_(torch.tensordot(vectors, b[: vectors.shape[1]], 1))
    save_adapter(pool, path)
    return path


@pytest.mark.parametrize("rank", [1, 3])
def test_inner_products_are_those_of_the_flattened_updates(rank: int) -> None:
    pool = randomised(Inventory(SHAPES, InventoryConfig(rank=rank), runs=5))
    slots = pool()
    flat = torch.cat([(slots[f"{layer}.up"].mT @ slots[f"{layer}.down"]).flatten(1) for layer in SHAPES], 1) / pool.scaling
    products = inner_products(pool.tensors().__getitem__, SHAPES)
    torch.testing.assert_close(products, (flat @ flat.T).double(), atol=1e-4, rtol=1e-5)


def test_each_cluster_gives_what_is_nearest_to_its_centre(tmp_path: Path) -> None:
    """Of three directions, in any order and of any length, that in the middle of each."""
    middle = torch.eye(3).repeat_interleave(3, 0)
    aside = torch.tensor([0.0, 0.3, -0.3]).repeat(3)[:, None] * torch.eye(3).roll(1, 1).repeat_interleave(3, 0)
    vectors = (middle + aside) * torch.arange(1, 10)[:, None]
    names = list("abcdefghi")
    assert clustered(pool_of(vectors, tmp_path / "pool"), names, count=3, seed=0) == [0, 3, 6]
    places = torch.randperm(9).tolist()
    torch.manual_seed(0)
    shuffled = clustered(pool_of(vectors[places], tmp_path / "pool"), [names[place] for place in places], count=3, seed=1)
    assert [places[place] for place in shuffled] == [0, 3, 6]


def test_fewer_directions_than_skills_are_refused() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]).double()
    assert medoids(vectors @ vectors.T, count=2, seed=0) == [0, 2]
    with pytest.raises(ParamsError, match="skills 3: the pool has 2 adapters that differ in direction"):
        medoids(vectors @ vectors.T, count=3, seed=0)


def test_adapters_are_taken_that_lower_the_sum_of_least_losses() -> None:
    losses = [{0: 1.0, 1: 1.1, 2: 4.0}, {0: 1.0, 1: 1.1, 3: 4.0}, {2: 0.5, 0: 9.0}]
    assert covering(losses, candidates=4, count=1) == [2]
    assert covering(losses, candidates=4, count=2) == [2, 0]
    assert covering(losses, candidates=4, count=4) == [2, 0, 1, 3]
    assert covering([{3: 1.0, 1: 1.0}], candidates=4, count=3) == [1, 3, 0]


@pytest.fixture
def pooled(copy: Path, run: Run) -> Path:
    """A project with a pool of three LoRAs, of two ranks less than a skill has."""
    assert run("pretrain", "-m", "adapter_soup", "--set", "pretrain.steps=12", "-C", copy) == 0
    return copy


def skills_of(project: Path, cell: str) -> tuple[list[str], Inventory]:
    folder = project / "data/pretrain" / cell
    adapter = load_adapter(folder / ADAPTERS)
    assert isinstance(adapter, Inventory)
    return json.loads((folder / "card.json").read_text())["facts"]["skills"], adapter


UNTRAINED = ["--set", "pretrain.steps=0", "--set", "pretrain.pool=adapter_soup"]


@pytest.mark.parametrize("by", ["useful", "clusters"])
def test_skills_begin_as_loras_of_the_pool(pooled: Path, run: Run, by: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = [*UNTRAINED, "--set", "pretrain.rank=3", "--set", f"pretrain.pool_by={by}"]
    assert run("pretrain", "-m", "mhr", *options, "-C", pooled) == 0
    names, inventory = skills_of(pooled, "mhr-h4-s0")
    assert f"; skills from {', '.join(names)}" in capfd.readouterr().err
    pool = load_adapter(pooled / "data/pretrain/adapter_soup-s0" / ADAPTERS)
    chosen = pool.select([["copy", "first", "last"].index(name) for name in names])()
    with torch.no_grad():
        for skill in range(2):
            assert inventory.routing is not None
            inventory.routing.fill_(-100.0)
            inventory.routing.unflatten(-1, (4, 2))[..., skill] = 100.0
            for name, slot in inventory(torch.zeros(1, 1, dtype=torch.long)).items():
                if name.endswith("down"):
                    up = inventory(torch.zeros(1, 1, dtype=torch.long))[name.replace("down", "up")]
                    expected = chosen[name.replace("down", "up")][skill].T @ chosen[name][skill]
                    torch.testing.assert_close(up[0].T @ slot[0], expected)
    assert run("pretrain", "-m", "mhr", *options, "-C", pooled) == 0
    assert "is up to date" in capfd.readouterr().err
    assert run("pretrain", "-m", "adapter_soup", "--set", "pretrain.steps=3", "-C", pooled) == 0
    assert run("pretrain", "-m", "mhr", *options, "-C", pooled) == 0
    assert "pre-trained mhr-h4-s0" in capfd.readouterr().err


@pytest.mark.parametrize("names", [list("abcde"), list("ecabd")])
def test_the_useful_ones_do_not_depend_on_the_order_of_the_pool(names: list[str]) -> None:
    """`c` is the best for both tasks together, then `e` for the second; the others are worse for both."""
    table = {"a": (5.0, 5.0), "b": (6.0, 6.0), "c": (1.0, 2.0), "d": (3.0, 3.0), "e": (9.0, 0.5)}
    samples: list[list[Any]] = [[0] * 4, [1] * 4]

    class Known(Tried):
        def losses(self, runs: Sequence[int], samples: Sequence[Any]) -> list[float]:
            return [sum(table[names[run]][task] for task in samples) for run in runs]

    nothing: Any = SimpleNamespace(track=silent)
    tried = Known(nothing, nothing, nothing, nothing)
    assert [names[place] for place in useful(names, samples, tried, count=2)] == ["c", "e"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-m", "poly", "--set", "pretrain.pool=lora"],
            "pretrain.pool lora: lora pre-trains no pool; name a cell of adapter_soup",
        ),
        (["-m", "lora", "--set", "pretrain.pool=adapter_soup"], "--set pretrain.pool: lora does not read it"),
        (["-m", "poly", "--set", "pretrain.pool_by=clusters"], "pool_by clusters chooses of a pool; name one with `pool`"),
        (
            [*UNTRAINED, "-m", "poly", "--set", "pretrain.skills=4"],
            "pretrain.skills 4: the pool adapter_soup-s0 has 3 adapters",
        ),
        ([*UNTRAINED, "-m", "poly", "--set", "pretrain.targets=light"], "pretrain.targets: leave out layers that the LoRAs to"),
        ([*UNTRAINED, "-m", "poly", "--set", "pretrain.validate_examples=0"], "pool_by useful tries the pool on validation"),
        ([*UNTRAINED, "-m", "poly", "--set", "pretrain.under=lora"], "skills of a pool are trained with nothing under them"),
        (
            ["-m", "poly", "--set", "pretrain.pool=adapter_soup-s9"],
            "adapter_soup-s9: no finished pretrain output; run `mhrctl pretrain adapter_soup-s9`",
        ),
    ],
)
def test_what_cannot_be_skills_is_refused_in_a_line(
    pooled: Path, run: Run, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    capfd.readouterr()
    assert run("pretrain", *arguments, "-C", pooled) == 2
    assert said in capfd.readouterr().err


def test_a_rank_that_is_too_small_is_refused() -> None:
    with pytest.raises(ParamsError, match="rank 1: the LoRAs to begin with have 2; set it to that or more"):
        Inventory(SHAPES, InventoryConfig(skills=2)).begin_with(Inventory(SHAPES, InventoryConfig(rank=2), runs=2))
    with pytest.raises(ValueError, match="1 LoRAs for 2 skills"):
        Inventory(SHAPES, InventoryConfig(skills=2)).begin_with(Inventory(SHAPES))
