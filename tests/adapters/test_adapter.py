"""What every adapter can do, and what folding and merging make of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mhrctl.adapters.adapter import Adapter, stack_runs, trainable
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.merging import RULES, Merge
from mhrctl.adapters.mosa import MoSA
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.models.attach import attach, inject

SHAPES = {"one": (8, 12)}


class Layers(nn.Module):
    """A model of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.one(x)
        return out


def single(kind: str) -> Adapter:
    adapters: dict[str, Adapter] = {
        "lora": Inventory(SHAPES, InventoryConfig(rank=3, alpha=2.0)),
        "ia3": Scales(SHAPES),
        "mosa": MoSA(SHAPES, InventoryConfig(rank=4), copies=2, sparse="full"),
    }
    with torch.no_grad():
        for parameter in adapters[kind].parameters():
            parameter.normal_()
    return adapters[kind].eval()


@pytest.mark.parametrize("kind", ["lora", "ia3", "mosa"])
def test_weights_with_an_adapter_put_in_do_what_the_layer_does_with_its_slots(kind: str) -> None:
    torch.manual_seed(0)
    plain, adapter, x = Layers(), single(kind), torch.randn(2, 5, 8)
    merged, adapted = copy.deepcopy(plain), copy.deepcopy(plain)
    attach(adapted, adapter)
    slots = adapter()
    expected = torch.func.functional_call(adapted, slots, (x,))
    assert adapter.foldable
    adapter.put_into(merged)
    torch.testing.assert_close(merged(x), expected)
    assert not torch.allclose(plain(x), expected)


def test_what_is_routed_or_of_several_runs_is_put_nowhere() -> None:
    for adapter in (Inventory(SHAPES, InventoryConfig(skills=2)), Inventory(SHAPES, runs=2), Scales(SHAPES, runs=2)):
        assert not adapter.foldable
        with pytest.raises(ValueError, match="only a single adapter without a routing can be merged"):
            adapter.put_into(Layers())


def test_capabilities_stand_on_the_class() -> None:
    weights = Weights.of(Layers())
    assert weights.replaces_weights
    assert not weights.foldable
    assert weights.exports_to == {"merge"}
    routed = Inventory(SHAPES, InventoryConfig(skills=2), tasks=3)
    assert (routed.routes_by, routed.averageable, routed.tasks) == ("task", True, 3)
    assert Scales(SHAPES).tasks == Inventory(SHAPES).tasks == 0
    assert routed.exports_to == {"peft", "merge"}
    assert Scales(SHAPES).routes_by == "none"
    with pytest.raises(TypeError, match="not averaged over runs"):
        Scales(SHAPES, runs=2).mean_of_runs([[0, 1]])
    with pytest.raises(TypeError, match="not joined"):
        Scales(SHAPES, runs=2).joined_runs(torch.tensor([[0]]), torch.ones(1, 1))
    with pytest.raises(TypeError, match="not merged"):
        Scales(SHAPES, runs=2).merge_runs([{0: "a"}], Merge(RULES["ties"]))


def test_mixing_is_what_the_routing_gives_each_layer() -> None:
    torch.manual_seed(0)
    routed = Inventory({"a.q": (8, 8), "b.o": (8, 16), "a.v": (8, 8)}, InventoryConfig(heads=2, skills=3), tasks=4).eval()
    with torch.no_grad():
        routed.routing_parameters()[0].normal_()
    ids = torch.tensor([[2, 0]])
    weights = routed.routing_weights(ids)[0]
    for place, layer in enumerate(routed.layers):
        assert torch.equal(routed.mixing(ids)[layer], weights[:, place])
    assert Scales(SHAPES).mixing(ids) == {}
    assert Inventory(SHAPES).mixing(ids) == {}


def test_parameters_are_counted_and_stacked_along_runs() -> None:
    one, other = Inventory(SHAPES, InventoryConfig(rank=2)), Inventory(SHAPES, InventoryConfig(rank=2))
    assert trainable(one.parameters()) == 2 * (8 + 12)
    stacked = stack_runs([one.state_dict(), other.state_dict()])
    assert torch.equal(stacked["lora_A.0"][1], other.lora_A[0][0])


def test_a_dropout_is_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = Layers()
    inject(layers, ["one"], dropout=0.25)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p, training: x * (1 - p) if training else x)
    adapter = single("lora")
    x = torch.randn(1, 8)
    with torch.no_grad():
        half = torch.func.functional_call(layers.train(), adapter(), (x,)) - layers.one.weight @ x[0] - layers.one.bias
        full = torch.func.functional_call(layers.eval(), adapter(), (x,)) - layers.one.weight @ x[0] - layers.one.bias
    torch.testing.assert_close(half, 0.75 * full)
