"""Adapters on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mhrctl.adapters import files
from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.build import adapter_kinds
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import Pool, load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.mosa import MoSA
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.errors import ArtifactError, DivergedError
from tests.adapters.test_inventory import SKILLS, randomised


def test_file_round_trip(tmp_path: Path) -> None:
    base = randomised(
        Inventory({"a.q": (8, 16), "b.q": (8, 16), "b.o": (16, 8)}, InventoryConfig(heads=4, skills=SKILLS, rank=2), tasks=7)
    )
    for inventory in (
        base,
        randomised(
            Inventory({"a.q": (8, 16), "b.q": (8, 16)}, InventoryConfig(heads=4, skills=SKILLS, granularity="model"), tasks=7)
        ),
        randomised(Inventory({"a.q": (8, 16)}, InventoryConfig(skills=SKILLS, routing="random", dropout=0.1))),
        randomised(Inventory({"a.q": (8, 16)}, runs=3)),
        base.for_new_tasks([1, 2], train_skills=False),
        base.for_new_tasks([1, 2], train_skills=True),
    ):
        save_adapter(inventory, tmp_path / "x.safetensors")
        loaded = load_adapter(tmp_path / "x.safetensors")
        assert loaded.state_dict().keys() == inventory.state_dict().keys()
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in inventory.state_dict().items())


def test_a_file_says_its_kind_and_its_settings(tmp_path: Path) -> None:
    config = InventoryConfig(heads=2, skills=3, rank=2, alpha=4.0, granularity="sublayer", temperature=0.5, dropout=0.1)
    save_adapter(Inventory({"a.q": (8, 16)}, config, tasks=5), tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert json.loads(file.metadata()["lora"]) == {
            "shapes": {"a.q": [8, 16]},
            "heads": 2,
            "skills": 3,
            "rank": 2,
            "alpha": 4.0,
            "routing": "learned",
            "granularity": "sublayer",
            "routing_blocks": 1,
            "temperature": 0.5,
            "straight_through": False,
            "dropout": 0.1,
            "runs": 1,
            "tasks": 5,
        }
        assert set(file.keys()) == {"a.q.lora_A", "a.q.lora_B", "a.routing"}
        assert file.get_slice("a.routing").get_shape() == [1, 5, 2, 3]


@pytest.mark.parametrize(
    "adapter",
    [
        Scales({"a.k": (4, 6)}, runs=2),
        Weights({"w": [2, 3]}, {"w": "w", "tied": "w"}, runs=2),
        MoSA({"a.q": (4, 6)}, InventoryConfig(rank=2), copies=2, sparse="hierarchical"),
    ],
    ids=["ia3", "weights", "mosa"],
)
def test_every_kind_comes_back_with_its_values(adapter: Adapter, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    save_adapter(adapter, tmp_path / "x.safetensors")
    loaded = load_adapter(tmp_path / "x.safetensors")
    assert type(loaded) is type(adapter)
    for name, tensor in adapter.tensors().items():
        assert torch.equal(loaded.tensors()[name], tensor)


def test_kinds_are_those_of_the_methods_table() -> None:
    assert {kind: chosen.__name__ for kind, chosen in adapter_kinds().items()} == {
        "lora": "Inventory",
        "ia3": "Scales",
        "weights": "Weights",
        "mosa": "MoSA",
        "adamix": "AdaMix",
        "align_lora": "AlignLoRA",
        "mtl_lora": "MTLLoRA",
        "c_poly": "CPoly",
        "hydra_lora": "HydraLoRA",
        "smear": "SMEAR",
        "arrow": "Arrow",
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path, bad: float) -> None:
    adapter, path = randomised(Inventory({"a.q": (8, 16)}, InventoryConfig(rank=2))), tmp_path / "adapters.safetensors"
    save_adapter(adapter, path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["a.q.lora_B"][..., -1] = bad
    save_file(tensors, path, metadata)
    with pytest.raises(ArtifactError, match=r"adapters.safetensors: a.q.lora_B holds NaN or infinity; make .* again$"):
        load_adapter(path)
    with torch.no_grad():
        adapter.lora_A[0][..., 0] = bad
    with pytest.raises(DivergedError, match=r"^new.safetensors, which was to be written: a.q.lora_A holds NaN or infinity; "):
        save_adapter(adapter, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("in_memory", [0, 2**28])
def test_a_pool_gives_the_adapters_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    adapters = randomised(Inventory({"a.q": (8, 16)}, InventoryConfig(rank=2), runs=4))
    save_adapter(adapters, tmp_path / "x.safetensors")
    monkeypatch.setattr(files, "IN_MEMORY", in_memory)
    pool = Pool(tmp_path / "x.safetensors")
    assert pool.numbers == 2 * (8 + 16)
    for runs in ([0], [2, 1]):
        expected = adapters.select(runs).state_dict()
        assert all(torch.equal(pool.select(runs).state_dict()[name], tensor) for name, tensor in expected.items())


def test_a_pool_is_compared_with_its_card_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which reads all of it: of a thousand adapters, at each choice of some, that would take the time."""
    compared: list[Path] = []

    @contextmanager
    def counting(path: Path) -> Iterator[None]:
        compared.append(path)
        yield

    save_adapter(Inventory({"a.q": (8, 16)}, runs=4), tmp_path / "x.safetensors")
    monkeypatch.setattr(files, "IN_MEMORY", 0)
    monkeypatch.setattr(files, "reading", counting)
    pool = Pool(tmp_path / "x.safetensors")
    for run in range(4):
        pool.select([run])
    assert compared == [tmp_path / "x.safetensors"]


def test_a_pool_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """The file has a hole of two TiB, which reads as zeros and takes no room."""
    wide, runs = 512, 2**29
    save_adapter(Inventory({"a.q": (wide, wide)}), tmp_path / "one.safetensors")
    with safe_open(tmp_path / "one.safetensors", "numpy") as file:
        metadata = file.metadata()
    shapes = {"a.q.lora_A": [runs, 1, 1, wide, 1], "a.q.lora_B": [runs, 1, 1, 1, wide]}
    size = runs * wide * torch.float32.itemsize
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [place * size, (place + 1) * size]}
        for place, (name, shape) in enumerate(shapes.items())
    }
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    with (tmp_path / "pool.safetensors").open("wb") as written:
        written.write(len(text).to_bytes(8, "little") + text)
        written.truncate(8 + len(text) + 2 * size)
    loaded = Pool(tmp_path / "pool.safetensors").select([runs - 1, 0])
    assert {name: tensor.shape[0] for name, tensor in loaded.tensors().items()} == dict.fromkeys(shapes, 2)
    assert not any(tensor.any() for tensor in loaded.tensors().values())


def test_there_is_no_pool(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x.safetensors"):
        Pool(tmp_path / "x.safetensors")
