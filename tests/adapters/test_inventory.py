"""The inventory and its layers against peft, against the formulas, and against the paper's counts."""

from __future__ import annotations

import math

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.merging import RULES, Form, Merge
from mhrctl.adapters.routing import uniform_interpolation
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.layer import AdaptedLinear
from tests.models.made import logits_of, ragged

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
    inventory = Inventory(
        inject(model, ["q", "wo"]), InventoryConfig(heads=heads, skills=SKILLS, rank=rank), tasks=TASKS
    ).eval()
    tensors = {f"{n}.{k}": t for n, layer in named_poly(wrapped) for k, t in poly_tensors(layer, heads).items()}
    for names, bank_a, bank_b in zip(inventory.stacks.values(), inventory.lora_A, inventory.lora_B, strict=True):
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
    for place, name in enumerate(inventory.stacks[(64, 128)]):
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
    inventory = Inventory(inject(model, ["q", "wo"]), InventoryConfig(rank=4, alpha=2))
    layers = dict(wrapped.base_model.model.named_modules())
    with torch.no_grad():
        for (name,), bank_a, bank_b in zip(inventory.stacks.values(), inventory.lora_A, inventory.lora_B, strict=True):
            bank_a[0, 0, 0, 0].copy_(layers[name].lora_A["default"].weight.T)
            bank_b[0, 0, 0, 0].copy_(layers[name].lora_B["default"].weight.T)
    x = torch.randn(4, 7, 64)
    ours, theirs = call(model, inventory, torch.zeros(1, 1, dtype=torch.long), x), wrapped(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for (name,), bank_a, bank_b in zip(inventory.stacks.values(), inventory.lora_A, inventory.lora_B, strict=True):
        torch.testing.assert_close(bank_a.grad[0, 0, 0, 0], layers[name].lora_A["default"].weight.grad.T)
        torch.testing.assert_close(bank_b.grad[0, 0, 0, 0], layers[name].lora_B["default"].weight.grad.T)


def test_new_adapters_leave_the_function_as_it_was() -> None:
    model = Stack()
    x = torch.randn(2, 3, 64)
    before = model(x)
    inventory = Inventory(inject(model, ["q", "wo"]), InventoryConfig(heads=4, skills=SKILLS), tasks=2)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    torch.testing.assert_close(call(model, inventory, torch.tensor([[0, 1]]), x), before, rtol=0, atol=0)


def test_average_equals_uniform_routing() -> None:
    model = Stack()
    inventory = randomised(Inventory(inject(model, ["q", "wo"]), InventoryConfig(heads=4, skills=SKILLS, rank=2), tasks=1))
    with torch.no_grad():
        inventory.routing_parameters()[0].fill_(0.7)
    x, ids = torch.randn(2, 3, 64), torch.tensor([[0]])
    torch.testing.assert_close(call(model, inventory.average(), ids, x), call(model, inventory, ids, x))


def test_runs_side_by_side_equal_runs_one_by_one() -> None:
    model = Stack()
    base = randomised(Inventory(inject(model, ["q", "wo"]), InventoryConfig(heads=4, skills=SKILLS), tasks=3))
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
    base = Inventory(inject(Stack(), ["q", "wo"]), InventoryConfig(heads=4, skills=SKILLS), tasks=3)
    new = base.for_new_tasks([0], train_skills=False)
    assert trainable(p for p in new.parameters() if p.requires_grad) == 2 * 4 * SKILLS


def test_relaxed_bernoulli_has_torchs_distribution() -> None:
    torch.manual_seed(0)
    inventory = Inventory({"q": (8, 8)}, InventoryConfig(skills=4, temperature=0.5), tasks=1)
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


def test_straight_through_rounds_forward_and_keeps_the_soft_gradient() -> None:
    torch.manual_seed(0)
    soft = Inventory({"q": (8, 8)}, InventoryConfig(skills=4, temperature=0.5), tasks=1)
    hard = Inventory({"q": (8, 8)}, InventoryConfig(skills=4, temperature=0.5, straight_through=True), tasks=1)
    ids = torch.zeros(1, 200, dtype=torch.long)
    weights = torch.rand(4)
    grads, values = [], []
    for inventory in (soft, hard):
        with torch.no_grad():
            inventory.routing_parameters()[0].copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
        torch.manual_seed(1)
        values.append(inventory.train().routing_weights(ids))
        grads.append(torch.autograd.grad((values[-1] * weights).sum(), inventory.routing_parameters()[0])[0])
    torch.testing.assert_close(grads[1], grads[0])
    active = (values[1] > 0).sum(-1, keepdim=True)
    torch.testing.assert_close(values[1], torch.where(values[1] > 0, 1 / active, 0.0))
    assert len(values[1].unique()) <= 5


def test_random_routing_is_a_binary_draw_for_each_example_and_the_mean_otherwise() -> None:
    torch.manual_seed(0)
    inventory = Inventory({"q": (8, 8), "o": (8, 8)}, InventoryConfig(skills=4, routing="random"))
    ids = torch.zeros(1, 4000, dtype=torch.long)
    assert inventory.routing_parameters() == []
    weights = inventory.train().routing_weights(ids)[0, :, :, 0]  # [groups, layers, skills]
    torch.testing.assert_close(weights.sum(-1), torch.ones(4000, 2))
    active = weights > 0
    torch.testing.assert_close(weights, active / active.sum(-1, keepdim=True))
    # a fair coin a skill, and the draw of none counts as all: (1/2 + 1/16)
    torch.testing.assert_close(active.float().mean((0, 1)), torch.full((4,), 0.5 + 1 / 16), atol=0.02, rtol=0)
    assert not torch.equal(active[:, 0], active[:, 1])
    assert torch.equal(inventory.eval().routing_weights(ids[:, :3]), torch.full((1, 3, 2, 1, 4), 0.25))
    model, x = Stack(), torch.randn(2, 3, 64)
    shapes = inject(model, ["q", "wo"])
    drawn = randomised(Inventory(shapes, InventoryConfig(skills=3, routing="random"))).eval()
    zeros = torch.zeros(1, 2, dtype=torch.long)
    torch.testing.assert_close(call(model, drawn, zeros, x), call(model, drawn.average(), zeros, x))


def test_uniform_interpolation_goes_from_the_routing_to_the_mean() -> None:
    inventory = randomised(Inventory({"q": (8, 8)}, InventoryConfig(skills=4), tasks=1))
    ids = torch.zeros(1, 1, dtype=torch.long)
    learned = inventory.routing_weights(ids)
    inventory.interpolation = 0.25
    torch.testing.assert_close(inventory.routing_weights(ids), 0.25 * learned + 0.75 / 4)
    alphas = [uniform_interpolation(step, steps=100, last=10) for step in range(100)]
    assert alphas[:90] == [1.0] * 90
    assert alphas[94] == pytest.approx(math.cos(math.pi / 4))
    assert alphas[99] == pytest.approx(0)
    assert {uniform_interpolation(step, steps=5, last=0) for step in range(5)} == {1.0}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
def test_peft_poly_cannot_search_with_beams(tiny_t5: T5ForConditionalGeneration) -> None:
    """Ours can, see `test_beams_share_the_adapters_of_their_row`."""
    wrapped = peft.get_peft_model(
        tiny_t5, peft.PolyConfig(r=1, n_tasks=2, n_skills=3, target_modules=["q", "wo"], task_type="SEQ_2_SEQ_LM")
    ).eval()
    ids = torch.randint(3, 40, (2, 6))
    with pytest.raises(RuntimeError, match="size"):
        wrapped.generate(  # type: ignore[no-untyped-call]
            input_ids=ids, task_ids=torch.tensor([0, 1]), num_beams=3, do_sample=False, max_new_tokens=5
        )


def test_composed_adapters_are_ordinary_loras_of_the_same_function() -> None:
    model = Stack()
    base = randomised(
        Inventory(inject(model, ["q", "wo"]), InventoryConfig(heads=4, skills=SKILLS, rank=2, alpha=3.0), tasks=2)
    )
    adapted = randomised(base.for_new_tasks([1, 2], train_skills=False))
    x, ids = torch.randn(4, 3, 64), torch.tensor([[0], [0]])
    composed = adapted.composed()
    assert (composed.skills, composed.heads, composed.runs) == (1, 1, 2)
    torch.testing.assert_close(call(model, composed, ids, x), call(model, adapted, ids, x))


def test_the_mean_of_runs() -> None:
    runs = randomised(Inventory({"q": (8, 16)}, InventoryConfig(rank=2), runs=3))
    soups = runs.mean_of_runs([[0, 2], [1]])
    for bank, soup in zip(runs.skill_parameters(), soups.skill_parameters(), strict=True):
        torch.testing.assert_close(soup, torch.stack([(bank[0] + bank[2]) / 2, bank[1]]))


@pytest.mark.parametrize("form", ["product", "factors"])
def test_merged_runs_are_those_of_the_layers_updates(form: Form) -> None:
    shapes = {"a.q": (8, 16), "b.q": (8, 16), "b.o": (16, 8)}
    runs = randomised(Inventory(shapes, InventoryConfig(rank=2, alpha=6.0, dropout=0.1), runs=3))
    merge = Merge(RULES["task_arithmetic"], form=form, scale=0.25)
    merged = runs.merge_runs([{2: "c", 0: "a"}, {1: "b", 2: "c"}], merge)
    assert (merged.runs, merged.rank, merged.scaling, merged.dropout) == (2, 2, 3.0, 0.1)
    before, after = runs(), merged()
    for name in shapes:
        a, b = before[f"{name}.down"], before[f"{name}.up"] / 3
        for place, group in enumerate([[2, 0], [1, 2]]):
            if form == "factors":
                expected = 3 * 0.25 * b[group].sum(0).T @ a[group].sum(0)
            else:
                u, sizes, vh = torch.linalg.svd(3 * 0.25 * (b[group].mT @ a[group]).sum(0))
                expected = (u[:, :2] * sizes[:2]) @ vh[:2]
            update = after[f"{name}.up"][place].T @ after[f"{name}.down"][place]
            torch.testing.assert_close(update, expected, rtol=1e-5, atol=1e-5)


def test_random_numbers_of_a_merge_are_the_adapters_own() -> None:
    runs = randomised(Inventory({"a.q": (8, 16), "b.q": (8, 16)}, InventoryConfig(rank=2), runs=3))
    for bank in runs.parameters():
        bank.data[:] = bank.data[:1, :1]  # so that draws alone tell runs and layers apart
    merge = Merge(RULES["dare_linear"], form="factors", density=0.5)
    first = runs.merge_runs([{0: "a"}, {1: "b"}, {0: "a", 1: "b"}], merge)
    again = runs.merge_runs([{2: "b", 1: "a"}, {1: "a"}], merge)
    for bank, back in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(bank[2], back[0])
        assert torch.equal(bank[0], back[1])
        assert not torch.equal(bank[0], bank[1])
        assert not torch.equal(bank[0, 0], bank[0, 1])


def test_routing_gradients_are_the_same_bits_every_time() -> None:
    inventory = Inventory({f"{n}.q": (64, 64) for n in range(54)}, InventoryConfig(heads=8, skills=8), tasks=80)
    routing = inventory.routing_parameters()[0]
    ids = torch.randint(0, 80, (1, 64))
    weights = torch.randn(1, 64, 54, 8, 8)
    grads = [torch.autograd.grad((inventory.routing_weights(ids) * weights).sum(), routing)[0] for _ in range(20)]
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_heads_must_divide_the_dimensions() -> None:
    with pytest.raises(ValueError, match=r"3 heads do not divide layer a\.q of shape 8 x 16; all layers can have 1, 2, 4"):
        Inventory({"a.q": (8, 16)}, InventoryConfig(heads=3))


def test_layers_are_found_by_their_last_name(tiny_t5: T5ForConditionalGeneration) -> None:
    keys = set(tiny_t5.state_dict())
    shapes = inject(tiny_t5, "full")
    assert len(shapes) == 7 + 11
    assert set(tiny_t5.state_dict()) == keys
    assert isinstance(tiny_t5.decoder.block[0].layer[1].EncDecAttention.q, AdaptedLinear)
    assert not any(parameter.requires_grad for parameter in tiny_t5.parameters())
    with pytest.raises(Exception, match=r"no linear layer is named 'c_attn'"):
        inject(tiny_t5, ["c_attn"])


@pytest.mark.parametrize("beams", [1, 3])
def test_beams_share_the_adapters_of_their_row(tiny_t5: T5ForConditionalGeneration, beams: int) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=SKILLS), tasks=2)).eval()
    model = AdaptedModel(tiny_t5, inventory).eval()
    ids = torch.randint(3, 40, (2, 6))
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 5}
    both = model.generate(torch.tensor([[0, 1]]), ragged(ids), **options)
    for task in (0, 1):
        (alone,) = model.generate(torch.tensor([[task]]), ragged(ids[task : task + 1]), **options)
        assert torch.equal(both[task][: len(alone)], alone)
        assert (both[task][len(alone) :] == 0).all()


def test_answer_choices_share_the_adapters_of_their_row(tiny_t5: T5ForConditionalGeneration) -> None:
    """Three choices a row, encoded once, equal each choice alone beside an input of its own."""
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=SKILLS), tasks=2)).eval()
    model = AdaptedModel(tiny_t5, inventory).eval()
    ids, choices = torch.randint(3, 40, (2, 6)), torch.randint(3, 40, (2, 3, 4))
    together = logits_of(model, torch.tensor([[0, 1]]), ids, choices.flatten(0, 1)).unflatten(0, (2, 3))
    for choice in range(3):
        alone = logits_of(model, torch.tensor([[0, 1]]), ids, choices[:, choice])
        torch.testing.assert_close(together[:, choice], alone)


def test_bf16_backbone_with_fp32_adapters(tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.bfloat16()
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(skills=SKILLS), tasks=2))
    ids = torch.randint(3, 40, (2, 6))
    logits = logits_of(AdaptedModel(tiny_t5, inventory), torch.tensor([[0, 1]]), ids, ids[:, :3])
    logits.float().sum().backward()
    assert logits.dtype == torch.bfloat16
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in inventory.parameters())


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_of_mixed_skills_are_those_of_plain_products(groups: int, heads: int) -> None:
    """To the bit: of one group there is nothing to sum up."""
    inventory = randomised(Inventory({"a": (8, 12)}, InventoryConfig(heads=heads, skills=SKILLS), tasks=TASKS, runs=2))
    ids = torch.arange(2 * groups).view(2, groups) % TASKS
    slots = inventory(ids)
    seen = torch.randn_like(slots["a.up"])
    (actual,) = torch.autograd.grad(slots["a.up"], inventory.lora_B[0], seen)
    weights = inventory.routing_weights(ids).permute(0, 2, 3, 1, 4).detach()  # [runs, layers, heads, groups, skills]
    bank = inventory.lora_B[0].detach().requires_grad_()
    mixed = (weights @ bank.flatten(-2)).permute(0, 3, 1, 2, 4)  # [runs, groups, layers, heads, d]
    (expected,) = torch.autograd.grad(mixed.flatten(2).view_as(seen), bank, seen)
    assert torch.equal(actual, expected)
