"""Which layers share a routing, and that sharing is what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.granularity import GRANULARITIES, routing_parts
from mhrctl.adapters.inventory import Inventory
from mhrctl.errors import ParamsError
from mhrctl.models.attach import inject
from tests.adapters.test_inventory import randomised

T5 = [
    f"{coder}.block.{block}.layer.{layer}"
    for coder, sublayers in (("encoder", ("0.SelfAttention.q", "1.DenseReluDense.wo")), ("decoder", ("0.SelfAttention.q",)))
    for block in range(4)
    for layer in sublayers
]


@pytest.mark.parametrize(
    ("granularity", "blocks", "parts"),
    [
        ("layer", 1, 12),
        ("sublayer", 1, 12),
        ("block", 1, 8),
        ("block", 3, 4),
        ("coder", 1, 2),
        ("model", 1, 1),
    ],
)
def test_number_of_routings(granularity: str, blocks: int, parts: int) -> None:
    assert len(set(routing_parts(T5, granularity, blocks).values())) == parts


def test_names_of_parts() -> None:
    layer = "encoder.block.5.layer.1.DenseReluDense.wi_0"
    names = {name: routing_parts([layer], name, 1)[layer] for name in GRANULARITIES}
    assert names == {
        "layer": layer,
        "sublayer": "encoder.block.5.layer.1.DenseReluDense",
        "block": "encoder.block.5",
        "coder": "encoder",
        "model": "model",
    }
    assert routing_parts([layer], "block", 4)[layer] == "encoder.block.4-7"
    bart = "model.decoder.layers.2.self_attn.q_proj"
    assert routing_parts([bart], "coder")[bart] == "model.decoder"
    assert routing_parts([bart], "block")[bart] == "model.decoder.layers.2"


def test_layers_in_no_block_are_rejected() -> None:
    with pytest.raises(ParamsError, match=r"layer lm_head is in no numbered block; use layer, sublayer or model"):
        routing_parts(["lm_head"], "block")
    with pytest.raises(ParamsError, match="unknown granularity 'fine'"):
        routing_parts(["lm_head"], "fine")


def test_a_shared_routing_is_the_same_routing_in_each_of_its_layers(tiny_t5: T5ForConditionalGeneration) -> None:
    """Equal to an inventory with a routing a layer whose rows are copies, in the forward pass and summed in gradients."""
    shapes = inject(tiny_t5, "full")
    shared = randomised(Inventory(shapes, InventoryConfig(heads=4, skills=3, granularity="coder"), tasks=5))
    separate = Inventory(shapes, InventoryConfig(heads=4, skills=3), tasks=5)
    part_of = routing_parts(separate.layers, "coder")
    places = torch.tensor([shared.parts.index(part_of[layer]) for layer in separate.layers])
    shared_routing, routing = shared.routing_parameters()[0], separate.routing_parameters()[0]
    with torch.no_grad():
        for mine, theirs in zip(separate.skill_parameters(), shared.skill_parameters(), strict=True):
            mine.copy_(theirs)
        routing.copy_(shared_routing[:, places])
    ids = torch.tensor([[1, 4]])
    ours, theirs = shared(ids), separate(ids)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name])
    grads: list[Tensor] = []
    for slots, parameter in ((ours, shared_routing), (theirs, routing)):
        grads.append(torch.autograd.grad(sum(slot.square().sum() for slot in slots.values()), parameter)[0])
    torch.testing.assert_close(grads[0], torch.zeros_like(grads[0]).index_add(1, places, grads[1]))
