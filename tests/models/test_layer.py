"""An adapted layer against its formula and against peft."""

from __future__ import annotations

import peft
import torch
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.models.attach import inject
from mhrctl.models.layer import AdaptedLinear
from tests.adapters.test_inventory import Stack


def test_dropout_is_applied_as_in_peft() -> None:
    torch.manual_seed(0)
    model, reference = Stack(), Stack()
    reference.load_state_dict(model.state_dict())
    config = peft.LoraConfig(r=4, lora_alpha=2, lora_dropout=0.5, target_modules=["q"], init_lora_weights=False)
    wrapped = peft.get_peft_model(reference, config)
    inventory = Inventory(inject(model, ["q"], dropout=0.5), InventoryConfig(rank=4, alpha=2, dropout=0.5))
    layer = dict(wrapped.base_model.model.named_modules())["q"]
    with torch.no_grad():
        inventory.lora_A[0][0, 0, 0, 0].copy_(layer.lora_A["default"].weight.T)
        inventory.lora_B[0][0, 0, 0, 0].copy_(layer.lora_B["default"].weight.T)
    x = torch.randn(4, 7, 64)
    outputs = []
    for training in (True, False):
        both = []
        for module, slots in ((wrapped, {}), (model, inventory())):
            torch.manual_seed(1)
            both.append(torch.func.functional_call(module.train(training), slots, (x,)))
        torch.testing.assert_close(*both)
        outputs.append(both[0])
    assert not torch.allclose(*outputs)


def test_the_adapted_wo_still_shows_its_weight(tiny_t5: T5ForConditionalGeneration) -> None:
    inject(tiny_t5, ["wo"])
    wo = tiny_t5.encoder.block[0].layer[1].DenseReluDense.wo
    assert wo.weight.dtype == torch.float32
    tiny_t5(input_ids=torch.tensor([[3, 1]]), decoder_input_ids=torch.tensor([[0]]))


def test_groups_of_rows_have_updates_or_scales_of_their_own() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(5, 3)
    layer, x = AdaptedLinear(linear).eval(), torch.randn(4, 6, 5)
    assert torch.equal(layer(x), linear(x))
    down, up, scale = torch.randn(2, 2, 5), torch.randn(2, 2, 3), torch.randn(2, 3)
    updated = torch.func.functional_call(layer, {"down": down, "up": up}, (x,))
    scaled = torch.func.functional_call(layer, {"scale": scale}, (x,))
    for group, rows in enumerate((slice(0, 2), slice(2, 4))):
        torch.testing.assert_close(updated[rows], linear(x[rows]) + x[rows] @ down[group].T @ up[group])
        torch.testing.assert_close(scaled[rows], linear(x[rows]) * scale[group])
    assert torch.equal(layer(x), linear(x))
