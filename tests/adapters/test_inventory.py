"""The inventory and its layers against peft, against the formulas, and against the paper's counts."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from mhrctl.adapters.files import load_inventory, save_inventory
from mhrctl.adapters.inventory import Inventory, trainable
from mhrctl.adapters.layer import AdaptedLinear, inject
from mhrctl.adapters.model import AdaptedModel
from mhrctl.params import TARGETS

TASKS, SKILLS = 5, 3


def randomised(inventory: Inventory) -> Inventory:
    """B and the routing away from their init, so that everything counts."""
    with torch.no_grad():
        for parameter in (*inventory.lora_B, *inventory.routing_parameters()):
            parameter.normal_()
    return inventory


class Stack(nn.Module):
    """Two linear layers of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(64, 128)
        self.wo = nn.Linear(128, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.wo(torch.tanh(self.q(x)))
        return y


def call(model: nn.Module, inventory: Inventory, task_ids: Tensor, x: Tensor) -> Tensor:
    y: Tensor = torch.func.functional_call(model, inventory(task_ids), (x,))
    return y


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("heads", [1, 8, 64])
def test_forward_and_gradients_equal_peft_poly(heads: int, rank: int) -> None:
    torch.manual_seed(0)
    model, reference = Stack(), Stack()
    reference.load_state_dict(model.state_dict())
    config = peft.PolyConfig(
        r=rank, n_tasks=TASKS, n_skills=SKILLS, n_splits=heads, target_modules=["q", "wo"], init_weights=False
    )
    wrapped = peft.get_peft_model(reference, config).eval()  # evaluation: no noise on the routing
    inventory = Inventory(inject(model, ["q", "wo"]), heads=heads, skills=SKILLS, rank=rank, tasks=TASKS).eval()
    tensors = {f"{n}.{k}": t for n, layer in named_poly(wrapped) for k, t in poly_tensors(layer, heads).items()}
    for names, bank_a, bank_b in zip(inventory.groups.values(), inventory.lora_A, inventory.lora_B, strict=True):
        with torch.no_grad():
            bank_a[0].copy_(torch.stack([tensors[f"{name}.lora_A"] for name in names]))
            bank_b[0].copy_(torch.stack([tensors[f"{name}.lora_B"] for name in names]))
    with torch.no_grad():
        inventory.routing_parameters()[0][0].copy_(torch.stack([tensors[f"{name}.routing"] for name in inventory.layers]))
    task_ids, x = torch.tensor([3, 0, 3, 1]), torch.randn(4, 7, 64)

    ours = call(model, inventory, task_ids[None], x)
    theirs = wrapped.base_model(x, task_ids=task_ids)
    torch.testing.assert_close(ours, theirs)

    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for place, name in enumerate(inventory.groups[(64, 128)]):
        layer = dict(named_poly(wrapped))[name]
        torch.testing.assert_close(inventory.lora_A[0].grad[0, place], layer.poly_lora_A["default"].grad)
        torch.testing.assert_close(inventory.lora_B[0].grad[0, place], layer.poly_lora_B["default"].grad)
        routing = layer.poly_router["default"].module_logits.grad
        torch.testing.assert_close(inventory.routing.grad[0, inventory.layers.index(name)], routing)


def named_poly(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name.removeprefix("base_model.model."), layer)
        for name, layer in model.named_modules()
        if hasattr(layer, "poly_router")
    ]


def poly_tensors(layer: nn.Module, heads: int) -> dict[str, Tensor]:
    a, b = layer.poly_lora_A["default"], layer.poly_lora_B["default"]
    assert a.shape[:2] == (heads, SKILLS)
    return {"lora_A": a, "lora_B": b, "routing": layer.poly_router["default"].module_logits}


def test_one_skill_equals_peft_lora() -> None:
    torch.manual_seed(0)
    model, reference = Stack(), Stack()
    reference.load_state_dict(model.state_dict())
    config = peft.LoraConfig(r=4, lora_alpha=2, target_modules=["q", "wo"], init_lora_weights=False)
    wrapped = peft.get_peft_model(reference, config)
    inventory = Inventory(inject(model, ["q", "wo"]), rank=4, alpha=2)
    layers = dict(wrapped.base_model.model.named_modules())
    with torch.no_grad():
        for (name,), bank_a, bank_b in zip(inventory.groups.values(), inventory.lora_A, inventory.lora_B, strict=True):
            bank_a[0, 0, 0, 0].copy_(layers[name].lora_A["default"].weight.T)
            bank_b[0, 0, 0, 0].copy_(layers[name].lora_B["default"].weight.T)
    x = torch.randn(4, 7, 64)
    torch.testing.assert_close(call(model, inventory, torch.zeros(1, 1, dtype=torch.long), x), wrapped(x))


def test_new_adapters_leave_the_function_as_it_was() -> None:
    model = Stack()
    x = torch.randn(2, 3, 64)
    before = model(x)
    inventory = Inventory(inject(model, ["q", "wo"]), heads=4, skills=SKILLS, tasks=2)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    torch.testing.assert_close(call(model, inventory, torch.tensor([[0, 1]]), x), before, rtol=0, atol=0)


def test_average_equals_uniform_routing() -> None:
    model = Stack()
    inventory = randomised(Inventory(inject(model, ["q", "wo"]), heads=4, skills=SKILLS, rank=2, tasks=1))
    with torch.no_grad():
        inventory.routing_parameters()[0].fill_(0.7)
    x, ids = torch.randn(2, 3, 64), torch.tensor([[0]])
    torch.testing.assert_close(call(model, inventory.average(), ids, x), call(model, inventory, ids, x))


def test_runs_side_by_side_equal_runs_one_by_one() -> None:
    model = Stack()
    base = randomised(Inventory(inject(model, ["q", "wo"]), heads=4, skills=SKILLS, tasks=3))
    for train_skills in (True, False):
        both = base.for_new_tasks([5, 9], train_skills=train_skills)
        x = torch.randn(6, 3, 64)
        together = call(model, both, torch.tensor([[0], [0]]), x)
        alone = [
            call(model, base.for_new_tasks([seed], train_skills=train_skills), torch.tensor([[0]]), part)
            for seed, part in zip((5, 9), x.chunk(2), strict=True)
        ]
        torch.testing.assert_close(together, torch.cat(alone))
        torch.testing.assert_close(call(model, both.select([1]), torch.tensor([[0]]), x[3:]), alone[1])


def test_routing_only_trains_exactly_the_new_rows() -> None:
    base = Inventory(inject(Stack(), ["q", "wo"]), heads=4, skills=SKILLS, tasks=3)
    new = base.for_new_tasks([0], train_skills=False)
    assert trainable(p for p in new.parameters() if p.requires_grad) == 2 * 4 * SKILLS


def test_relaxed_bernoulli_has_torchs_distribution() -> None:
    torch.manual_seed(0)
    inventory = Inventory({"q": (8, 8)}, skills=4, tasks=1, temperature=0.5)
    with torch.no_grad():
        inventory.routing_parameters()[0].copy_(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    ids = torch.zeros(1, 40_000, dtype=torch.long)
    ours = inventory.train().routing_weights(ids)[0, :, 0, 0]
    gates = torch.distributions.RelaxedBernoulli(torch.tensor(0.5), logits=torch.tensor([-2.0, 0.0, 1.0, 3.0])).sample(
        (40_000,)
    )
    theirs = gates / gates.sum(-1, keepdim=True)
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=0.01, rtol=0)
    inventory.eval()
    assert torch.equal(inventory.routing_weights(ids[:, :2])[0, 0], inventory.routing_weights(ids[:, :2])[0, 1])


def test_routing_gradients_are_the_same_bits_every_time() -> None:
    inventory = Inventory({f"{n}.q": (64, 64) for n in range(54)}, heads=8, skills=8, tasks=80)
    routing = inventory.routing_parameters()[0]
    ids = torch.randint(0, 80, (1, 64))
    weights = torch.randn(1, 64, 54, 8, 8)
    grads = [torch.autograd.grad((inventory.routing_weights(ids) * weights).sum(), routing)[0] for _ in range(20)]
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_file_round_trip(tmp_path: Path) -> None:
    base = randomised(Inventory({"a.q": (8, 16), "b.q": (8, 16), "b.o": (16, 8)}, heads=4, skills=SKILLS, rank=2, tasks=7))
    for inventory in (
        base,
        base.for_new_tasks([1, 2], train_skills=False),
        base.for_new_tasks([1, 2], train_skills=True),
    ):
        save_inventory(inventory, tmp_path / "x.safetensors")
        loaded = load_inventory(tmp_path / "x.safetensors")
        assert loaded.state_dict().keys() == inventory.state_dict().keys()
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in inventory.state_dict().items())


def test_counts_equal_the_papers_on_t5_xl() -> None:
    printed = json.loads((Path(__file__).parents[2] / "mhrctl/paper/tables.json").read_text())["exact_parameter_counts_t5_xl"]
    with torch.device("meta"):
        config = T5Config(
            d_model=2048,
            d_kv=64,
            d_ff=5120,
            num_layers=24,
            num_heads=32,
            feed_forward_proj="gated-gelu",
            vocab_size=32128,
        )
        shapes = inject(T5ForConditionalGeneration(config), TARGETS)

        def skills(**settings: int) -> int:
            return trainable(Inventory(shapes, **settings).skill_parameters())

        def routing(heads: int) -> int:
            return trainable(Inventory(shapes, heads=heads, skills=8).routing_parameters())

        light = {name: shape for name, shape in shapes.items() if name.rpartition(".")[2] in {"k", "v", "wi_1"}}
        ours = {
            "lora_rank1_full": skills(),
            "lora_rank16_full": skills(rank=16),
            "poly_inventory_8": skills(skills=8),
            "z_one_task_heads1": routing(1),
            "z_one_task_heads8": routing(8),
            "z_one_task_heads64": routing(64),
            "lora_rank1_light": trainable(Inventory(light).skill_parameters()),
            "poly_inventory_8_light": trainable(Inventory(light, skills=8).skill_parameters()),
            "lora_rank16_light": trainable(Inventory(light, rank=16).skill_parameters()),
        }
    assert len(shapes) == 432
    assert ours == {name: printed[name] for name in ours}


def test_heads_must_divide_the_dimensions() -> None:
    with pytest.raises(ValueError, match=r"3 heads do not divide layer a\.q of shape 8 x 16"):
        Inventory({"a.q": (8, 16)}, heads=3)


def test_layers_are_found_by_their_last_name(tiny_t5: T5ForConditionalGeneration) -> None:
    keys = set(tiny_t5.state_dict())
    shapes = inject(tiny_t5, TARGETS)
    assert len(shapes) == 7 + 11
    assert set(tiny_t5.state_dict()) == keys
    assert isinstance(tiny_t5.decoder.block[0].layer[1].EncDecAttention.q, AdaptedLinear)
    assert not any(parameter.requires_grad for parameter in tiny_t5.parameters())
    with pytest.raises(Exception, match=r"no linear layer is named 'c_attn'"):
        inject(tiny_t5, ["c_attn"])


@pytest.mark.parametrize("beams", [1, 3])
def test_beams_share_the_adapters_of_their_row(tiny_t5: T5ForConditionalGeneration, beams: int) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, TARGETS), heads=4, skills=SKILLS, tasks=2)).eval()
    model = AdaptedModel(tiny_t5, inventory).eval()
    ids = torch.randint(3, 40, (2, 6))
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 5}
    both = model.generate(torch.tensor([[0, 1]]), input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    for task in (0, 1):
        one = ids[task : task + 1]
        alone = model.generate(torch.tensor([[task]]), input_ids=one, attention_mask=torch.ones_like(one), **options)[0]
        assert torch.equal(both[task][: len(alone)], alone)
        assert (both[task][len(alone) :] == 0).all()


def test_bf16_backbone_with_fp32_adapters(tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.bfloat16()
    inventory = randomised(Inventory(inject(tiny_t5, TARGETS), skills=SKILLS, tasks=2))
    ids = torch.randint(3, 40, (2, 6))
    logits = AdaptedModel(tiny_t5, inventory)(torch.tensor([[0, 1]]), input_ids=ids, decoder_input_ids=ids[:, :3])
    logits.float().sum().backward()
    assert logits.dtype == torch.bfloat16
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in inventory.parameters())
