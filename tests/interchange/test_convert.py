"""Our adapters and the neutral weights of other formats, there and back."""

from __future__ import annotations

import pytest
import torch

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.interchange.convert import to_adapter, to_weights
from mhrctl.interchange.weights import LayerSkills, ScaleWeights, SkillWeights
from tests.interchange.test_peft import WI_1, Q, V

SHAPES = {Q: (16, 16), V: (16, 8), WI_1: (16, 32)}


def filled(adapter: Adapter) -> Adapter:
    """An adapter with random numbers everywhere."""
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    return adapter


@pytest.mark.parametrize(
    "adapter",
    [
        Inventory(SHAPES, InventoryConfig(rank=2, alpha=3.0)),
        Inventory(SHAPES, InventoryConfig(heads=4, skills=3, rank=2), tasks=5),
        Inventory(SHAPES, InventoryConfig(heads=4, skills=3, granularity="model"), tasks=5),
        Scales(SHAPES),
    ],
    ids=["lora", "mhr", "shared routing", "ia3"],
)
def test_there_and_back_is_the_same_function(adapter: Adapter) -> None:
    filled(adapter).eval()
    again = to_adapter(to_weights(adapter), SHAPES).eval()
    tasks = [torch.tensor([[task]]) for task in (0, 4)] if adapter.routing_parameters() else [None]
    for task in tasks:
        before, after = adapter(task), again(task)
        assert before.keys() == after.keys()
        for slot, tensor in before.items():
            torch.testing.assert_close(after[slot], tensor)


def test_a_shared_routing_is_repeated_for_each_layer() -> None:
    adapter = filled(Inventory(SHAPES, InventoryConfig(heads=2, skills=3, granularity="model"), tasks=5))
    weights = to_weights(adapter)
    assert isinstance(weights, SkillWeights)
    assert (weights.heads, weights.skills, list(weights.layers)) == (2, 3, list(SHAPES))
    first = weights.layers[Q].routing
    assert first is not None
    assert first.shape == (5, 2, 3)
    assert all(layer.routing is not None and torch.equal(layer.routing, first) for layer in weights.layers.values())


def test_skills_without_a_routing_count_alike() -> None:
    layers = {Q: LayerSkills(torch.randn(2, 3, 8, 1), torch.randn(2, 3, 1, 8))}
    adapter = to_adapter(SkillWeights(1.0, 1, 2, 3, layers), SHAPES)
    assert list(adapter.shapes) == [Q]
    assert not adapter.tensors()[f"{Q}.routing"].any()
    down = adapter.eval()(torch.tensor([[0]]))[f"{Q}.down"]
    torch.testing.assert_close(down.flatten(), layers[Q].lora_A.mean(1).flatten())


def test_scales_are_those_of_their_layers() -> None:
    scales = {WI_1: torch.randn(32)}
    adapter = to_adapter(ScaleWeights(scales), SHAPES)
    assert isinstance(adapter, Scales)
    assert torch.equal(adapter.tensors()[f"{WI_1}.scale"][0], scales[WI_1])


def test_several_runs_and_whole_weights_have_no_such_form() -> None:
    with pytest.raises(ValueError, match="2 runs; select one"):
        to_weights(Inventory(SHAPES, runs=2))
    with pytest.raises(TypeError, match="are no adapter of layers"):
        to_weights(Weights.of(torch.nn.Linear(2, 2)))
