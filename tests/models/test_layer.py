"""An adapted layer against its formula and against peft."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.pytorch_utils import Conv1D

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.token_routing import TokenRouting
from mhrctl.models.attach import inject
from mhrctl.models.layer import LONG, AdaptedConv1D, AdaptedLinear, adapted, shape_of
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


OWNERS = [0, 0, 0, 1, 2, 2]
"""Three groups of three, one and two tokens of a packed row."""


def conv1d() -> Conv1D:
    """A layer of GPT-2, from 5 to 3."""
    layer = Conv1D(3, 5)
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_tokens_of_a_packed_row_have_the_adapters_of_their_owners(
    kind: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One masked product of all groups, and one product a group, are the same."""
    monkeypatch.setattr("mhrctl.models.layer.MASKED", 64 if masked else 0)
    torch.manual_seed(0)
    linear = conv1d() if kind == "conv1d" else torch.nn.Linear(5, 3)
    layer, x = adapted(linear).eval(), torch.randn(1, 6, 5)
    slots = {"down": torch.randn(3, 2, 5), "up": torch.randn(3, 2, 3), "owners": torch.tensor(OWNERS)}
    for slot in ("down", "up"):
        slots[slot].requires_grad_()
    updated = torch.func.functional_call(layer, slots, (x,))
    rows = [x[0, token] @ slots["down"][group].T @ slots["up"][group] for token, group in enumerate(OWNERS)]
    expected = linear(x) + torch.stack(rows)
    torch.testing.assert_close(updated, expected)
    counts = torch.randn_like(updated)
    learned = [slots["down"], slots["up"]]
    given, by_hand = (torch.autograd.grad((each * counts).sum(), learned) for each in (updated, expected))
    torch.testing.assert_close(given, by_hand)
    scale = torch.randn(3, 3)
    scaled = torch.func.functional_call(layer, {"scale": scale, "owners": torch.tensor(OWNERS)}, (x,))
    torch.testing.assert_close(scaled, linear(x) * scale[OWNERS])


@pytest.mark.parametrize("masked", [True, False])
def test_a_group_may_have_no_token(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.models.layer.MASKED", 64 if masked else 0)
    torch.manual_seed(0)
    linear = torch.nn.Linear(5, 3)
    x, down, up = torch.randn(1, 3, 5), torch.randn(3, 2, 5), torch.randn(3, 2, 3)
    owners = torch.tensor([0, 2, 2])
    updated = torch.func.functional_call(adapted(linear).eval(), {"down": down, "up": up, "owners": owners}, (x,))
    expected = torch.stack([x[0, token] @ down[group].T @ up[group] for token, group in enumerate(owners.tolist())])
    torch.testing.assert_close(updated, linear(x) + expected)


@pytest.mark.parametrize("each", [1, LONG])
def test_sizes_that_are_said_are_not_counted(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting on a GPU waits for it, once a layer."""
    torch.manual_seed(0)
    sizes = torch.tensor([each, 2 * each])
    slots = {"down": torch.randn(2, 2, 5), "up": torch.randn(2, 2, 3), "owners": torch.arange(2).repeat_interleave(sizes)}
    layer, x = AdaptedLinear(torch.nn.Linear(5, 3)).eval(), torch.randn(1, 3 * each, 5)
    counted = torch.func.functional_call(layer, slots, (x,))
    monkeypatch.setattr("torch.bincount", None)
    torch.testing.assert_close(torch.func.functional_call(layer, slots | {"sizes": sizes}, (x,)), counted)


def test_a_layer_of_gpt2_keeps_its_weight_as_it_is_stored() -> None:
    linear = conv1d()
    layer, x = adapted(linear), torch.randn(4, 6, 5)
    assert isinstance(layer, AdaptedConv1D)
    assert layer.weight is linear.weight
    assert (shape_of(linear), shape_of(layer), layer.matrix.shape) == ((5, 3), (5, 3), (3, 5))
    torch.testing.assert_close(layer(x), linear(x))
    down, up = torch.randn(2, 2, 5), torch.randn(2, 2, 3)
    updated = torch.func.functional_call(layer, {"down": down, "up": up}, (x,))
    for group, rows in enumerate((slice(0, 2), slice(2, 4))):
        torch.testing.assert_close(updated[rows], linear(x[rows]) + x[rows] @ down[group].T @ up[group])


def with_experts(linear: torch.nn.Linear | Conv1D, *, dropout: float = 0.0) -> tuple[AdaptedLinear, dict[str, Tensor]]:
    """A layer from 5 to 3 whose three groups have two experts of rank 2 each, and its slots."""
    layer = adapted(linear, dropout=dropout)
    layer.token_routing = TokenRouting()
    return layer, {"down": torch.randn(3, 4, 5), "up": torch.randn(3, 4, 3), "router": torch.randn(3, 2, 5)}


def experts(x: Tensor, slots: dict[str, Tensor], group: int) -> Tensor:
    """What the experts of a group add for its tokens."""
    down, up, router = (slots[name][group].unflatten(0, (2, -1)) for name in ("down", "up", "router"))
    weights = torch.softmax(x @ router[:, 0].T, -1)
    return sum(weights[..., each, None] * (x @ down[each].T @ up[each]) for each in range(2))


@pytest.mark.parametrize("linear", [torch.nn.Linear(5, 3), conv1d()])
def test_experts_are_mixed_for_each_token_of_each_group(linear: torch.nn.Linear | Conv1D) -> None:
    torch.manual_seed(0)
    layer, slots = with_experts(linear)
    x = torch.randn(6, 4, 5)
    rows = torch.func.functional_call(layer, slots, (x,))
    packed = x.flatten(0, 1)[None, : len(OWNERS)]
    owned = {**slots, "owners": torch.tensor(OWNERS)}
    tokens = torch.func.functional_call(layer, owned, (packed,))
    counted = torch.func.functional_call(layer, {**owned, "sizes": torch.tensor([3, 1, 2])}, (packed,))
    assert torch.equal(tokens, counted)
    for group in range(3):
        part = slice(2 * group, 2 * group + 2)
        torch.testing.assert_close(rows[part], linear(x[part]) + experts(x[part], slots, group))
        of_group = [place for place, owner in enumerate(OWNERS) if owner == group]
        expected = linear(packed[0, of_group]) + experts(packed[0, of_group], slots, group)
        torch.testing.assert_close(tokens[0, of_group], expected)


def test_a_routing_without_experts_leaves_the_layer_as_it_was() -> None:
    torch.manual_seed(0)
    plain, x = AdaptedLinear(torch.nn.Linear(5, 3)), torch.randn(2, 4, 5)
    slots = {"down": torch.randn(1, 2, 5), "up": torch.randn(1, 2, 3)}
    before = torch.func.functional_call(plain, slots, (x,))
    plain.token_routing = TokenRouting()
    assert torch.equal(torch.func.functional_call(plain, slots, (x,)), before)


def test_dropout_is_of_the_experts_inputs_and_not_of_the_routing() -> None:
    """As HydraLoRA's code has it."""
    torch.manual_seed(0)
    layer, slots = with_experts(torch.nn.Linear(5, 3), dropout=0.5)
    x = torch.randn(3, 4, 5)
    seen: list[Tensor] = []

    def routing(tokens: Tensor, router: Tensor) -> Tensor:
        seen.append(tokens)
        return TokenRouting()(tokens, router)

    layer.token_routing = routing  # type: ignore[assignment]
    training, evaluated = (torch.func.functional_call(layer.train(mode), slots, (x,)) for mode in (True, False))
    assert not torch.allclose(training, evaluated)
    assert all(torch.equal(tokens, x) for tokens in seen)
