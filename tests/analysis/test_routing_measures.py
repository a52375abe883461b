"""The numbers of a routing: by hand, and by plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mhrctl.adapters import routing as adapters_routing
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.analysis import routing_measures
from mhrctl.analysis.routing_measures import (
    Array,
    Inspection,
    Measures,
    Routing,
    measure_heads,
)
from mhrctl.errors import ArtifactError

LAYERS = {
    "encoder.block.0.layer.0.SelfAttention.q": (8, 8),
    "encoder.block.0.layer.1.DenseReluDense.wo": (16, 8),
    "decoder.block.0.layer.0.SelfAttention.q": (8, 8),
}
Q, WO, DECODER = LAYERS


def random_logits(tasks: int = 5, heads: int = 3, skills: int = 4, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 2, (tasks, heads, skills))


def random_routing(tasks: int = 5, heads: int = 3) -> Routing:
    names = tuple(f"task {number}" for number in range(tasks))
    return Routing(names, {layer: random_logits(tasks, heads, seed=seed) for seed, layer in enumerate(LAYERS)})


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def by_plain_loops(logits: Array, head: int) -> Measures:
    """The definitions, spelt out."""
    tasks, _, skills = logits.shape
    on, bits, use, effective = 0, 0.0, [0.0] * skills, 0.0
    for task in range(tasks):
        gates = [sigmoid(float(logits[task, head, skill])) for skill in range(skills)]
        on += sum(math.floor(gate + 0.5) for gate in gates)
        bits += sum(-gate * math.log2(gate) - (1 - gate) * math.log2(1 - gate) for gate in gates)
        use = [total + gate for total, gate in zip(use, gates, strict=True)]
        weights = [gate / sum(gates) for gate in gates]
        effective += math.exp(-sum(weight * math.log(weight) for weight in weights))
    shares = [total / sum(use) for total in use]
    efficiency = -sum(share * math.log(share) for share in shares) / math.log(skills)
    return Measures(on / (tasks * skills), bits / (tasks * skills), efficiency, effective / tasks)


def values(measures: Measures) -> list[float]:
    return list(vars(measures).values())


def test_logits_of_zero_are_dense_undecided_and_even() -> None:
    (head,) = measure_heads(np.zeros((3, 1, 8)))
    assert values(head) == pytest.approx([1, 1, 1, 8], abs=1e-9)


def test_one_skill_for_each_task() -> None:
    logits = np.where(np.eye(4, dtype=bool), 50.0, -50.0)[:, None]
    (head,) = measure_heads(logits)
    assert values(head) == pytest.approx([1 / 4, 0, 1, 1], abs=1e-9)


def test_one_skill_for_all_tasks() -> None:
    logits = np.full((4, 1, 4), -50.0)
    logits[..., 2] = 50
    (head,) = measure_heads(logits)
    assert values(head) == pytest.approx([1 / 4, 0, 0, 1], abs=1e-9)


def test_logits_at_the_ends_of_the_range_give_numbers() -> None:
    (head,) = measure_heads(np.array([[[1e4, -1e4]], [[-1e4, -1e4]]]))
    assert np.isfinite(values(head)).all()
    assert head.sparsity == 1 / 4


@pytest.mark.parametrize("head", [0, 1, 2])
def test_random_logits_as_by_plain_loops(head: int) -> None:
    logits = random_logits()
    assert values(measure_heads(logits)[head]) == pytest.approx(values(by_plain_loops(logits, head)), abs=1e-9)


def test_parts_are_means_of_layers_and_layers_of_heads() -> None:
    routing = random_routing()
    by_layer = {
        layer: np.mean([values(by_plain_loops(logits, head)) for head in range(3)], axis=0)
        for layer, logits in routing.logits.items()
    }
    inspection = Inspection.of(routing)
    for layer, expected in by_layer.items():
        assert values(inspection.parts[layer]) == pytest.approx(expected.tolist())
    encoder, decoder = inspection.of_coder("encoder"), inspection.of_coder("decoder")
    assert encoder is not None
    assert decoder is not None
    assert values(encoder) == pytest.approx(((by_layer[Q] + by_layer[WO]) / 2).tolist())
    assert values(decoder) == pytest.approx(by_layer[DECODER].tolist())
    assert values(inspection.overall) == pytest.approx(np.mean(list(by_layer.values()), axis=0).tolist())


def test_a_routing_of_the_whole_model_is_of_neither_coder() -> None:
    inspection = Inspection.of(Routing(("a", "b"), {"model": random_logits(2)}))
    assert inspection.of_coder("encoder") is None
    assert values(inspection.overall) == pytest.approx(values(inspection.parts["model"]))


def test_the_weights_are_those_that_the_inventory_mixes_with() -> None:
    inventory = Inventory(LAYERS, InventoryConfig(heads=2, skills=3), tasks=4)
    assert inventory.routing is not None
    torch.nn.init.normal_(inventory.routing, std=2)
    routing = Routing.of(inventory, ["a", "b", "c", "d"])
    mixed = inventory.eval().routing_weights(torch.arange(4)[None])[0].detach().numpy()
    assert list(routing.logits) == list(LAYERS)
    assert (routing.heads, routing.skills) == (2, 3)
    for place, layer in enumerate(inventory.layers):
        np.testing.assert_allclose(routing.weights(layer), mixed[:, place], atol=1e-6)


def test_runs_of_one_task_each_are_tasks() -> None:
    inventory = Inventory(LAYERS, InventoryConfig(heads=2, skills=3)).for_new_tasks([5, 6], train_skills=True)
    routing = Routing.of(inventory, ["a", "b"])
    assert inventory.routing is not None
    np.testing.assert_allclose(routing.logits[Q][1].ravel(), inventory.routing[1, 0, 0].detach().numpy(), atol=1e-7)
    with pytest.raises(ArtifactError, match="has 2 tasks, expected 3"):
        Routing.of(inventory, ["a", "b", "c"])


def test_parts_that_share_a_routing_are_named_by_what_shares_it() -> None:
    routing = Routing.of(Inventory(LAYERS, InventoryConfig(skills=2, granularity="sublayer")), ["a"])
    assert list(routing.logits) == [layer.rpartition(".")[0] for layer in LAYERS]


def test_logits_that_are_not_finite_are_rejected() -> None:
    inventory = Inventory(LAYERS, InventoryConfig(skills=2))
    assert inventory.routing is not None
    with torch.no_grad():
        inventory.routing[0, 1] = torch.nan
    with pytest.raises(ArtifactError, match=r"routing of .*: its logits are not all finite"):
        Routing.of(inventory, ["a"])


@pytest.mark.parametrize("granularity", ["layer", "sublayer", "model"])
def test_a_routing_is_read_from_the_file_of_adapters(granularity: str, tmp_path: Path) -> None:
    inventory = Inventory(LAYERS, InventoryConfig(heads=2, skills=3, granularity=granularity), tasks=4)
    assert inventory.routing is not None
    torch.nn.init.normal_(inventory.routing, std=2)
    file = tmp_path / "adapters.safetensors"
    save_adapter(inventory, file)
    tasks = ["a", "b", "c", "d"]
    read, taken = Routing.read(file, tasks), Routing.of(inventory, tasks)
    assert list(read.logits) == list(taken.logits)
    for part, logits in taken.logits.items():
        np.testing.assert_array_equal(read.logits[part], logits)
    with pytest.raises(ArtifactError, match="has 4 tasks, expected 1"):
        Routing.read(file, ["a"])


def test_of_runs_the_file_has_a_task_each(tmp_path: Path) -> None:
    inventory = Inventory(LAYERS, InventoryConfig(heads=2, skills=3)).for_new_tasks([5, 6], train_skills=True)
    save_adapter(inventory, tmp_path / "adapters.safetensors")
    read = Routing.read(tmp_path / "adapters.safetensors", ["a", "b"])
    np.testing.assert_array_equal(read.logits[Q], Routing.of(inventory, ["a", "b"]).logits[Q])


def test_a_file_without_a_routing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "adapters.safetensors"
    for made in (Inventory(LAYERS, InventoryConfig(rank=2)), Inventory(LAYERS, InventoryConfig(skills=2, routing="random"))):
        save_adapter(made, file)
        with pytest.raises(ArtifactError, match="has no routing"):
            Routing.read(file, ["a"])
    file.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"adapters\.safetensors"):
        Routing.read(file, ["a"])


def test_weights_are_normalised_as_those_of_the_adapters() -> None:
    assert adapters_routing.EPS == routing_measures.EPS
