"""Which layers are adapted, and dropout of their input."""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import BartForConditionalGeneration, T5ForConditionalGeneration

from mhrctl.adapters.inventory import Inventory, InventoryConfig
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import find_layers, inject, linear_shapes
from tests.adapters.test_inventory import Stack, randomised


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        ("full", 18),
        ("light", 8),
        (["q", "v"], 6),
        (["encoder.block.0.layer.0.SelfAttention.q"], 1),
        (r"decoder\..*EncDecAttention\.[kv]", 2),
    ],
)
def test_targets(tiny_t5: T5ForConditionalGeneration, targets: str | list[str], count: int) -> None:
    assert len(find_layers(linear_shapes(tiny_t5), targets)) == count


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q", "c_attn"], r"no linear layer is named 'c_attn' \(there are: k, lm_head, o, q"),
        ("EncDecAttention", r"no linear layer's name matches 'EncDecAttention' \(names look like encoder.block.0.layer.0"),
        ("([", r"'\(\[' is neither a layout \(full, light\) nor a regular expression"),
    ],
)
def test_targets_that_match_nothing_are_answered(
    tiny_t5: T5ForConditionalGeneration, targets: str | list[str], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        inject(tiny_t5, targets)


def test_another_architecture_wears_adapters_by_its_own_names(tiny_bart: BartForConditionalGeneration) -> None:
    torch.manual_seed(0)
    with pytest.raises(ParamsError, match="no linear layer is named 'k'"):
        inject(tiny_bart, "full")
    ids = torch.randint(4, 40, (2, 5))
    before = tiny_bart(input_ids=ids, decoder_input_ids=ids).logits
    inventory = Inventory(
        inject(tiny_bart, ["q_proj", "fc1"]), InventoryConfig(heads=4, skills=2, granularity="coder"), tasks=2
    ).eval()
    assert inventory.parts == ["model.encoder", "model.decoder"]
    model = AdaptedModel(tiny_bart, inventory).eval()
    torch.testing.assert_close(model(torch.tensor([[0, 1]]), input_ids=ids, decoder_input_ids=ids), before)
    randomised(inventory)
    assert not torch.allclose(model(torch.tensor([[0, 1]]), input_ids=ids, decoder_input_ids=ids), before)


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
