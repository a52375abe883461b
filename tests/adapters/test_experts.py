"""HydraLoRA against its formula, and Arrow against peft's, over the same adapters."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.lora import ArrowConfig, create_arrow_model
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.experts import Arrow, HydraLoRA, directions
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.token_routing import mixed
from mhrctl.config.options import ArrowOptions
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.layer import AdaptedLinear
from tests.adapters.test_inventory import randomised
from tests.models.made import logits_of

SHAPES = {"a.q": (6, 6), "a.v": (6, 4), "b.q": (6, 6)}
NAMES = ["one", "two", "three", "four"]


def pool(count: int = len(NAMES), *, rank: int = 2) -> Inventory:
    torch.manual_seed(0)
    return randomised(Inventory(SHAPES, InventoryConfig(rank=rank, alpha=3.0), runs=count))


def hydra(*, runs: int = 1) -> HydraLoRA:
    torch.manual_seed(0)
    made = HydraLoRA(SHAPES, InventoryConfig(skills=3, rank=2, alpha=4.0), runs=runs)
    randomised(made)
    return made


def test_hydra_lora_begins_as_the_backbone_and_has_one_a_for_all() -> None:
    new = HydraLoRA(SHAPES, InventoryConfig(skills=3, rank=2))
    assert all(not bank.any() for bank in new.lora_B)
    assert all(router.any() for router in new.router)
    assert trainable(new.parameters()) == sum(2 * d_in + 3 * 2 * d_out + 3 * d_in for d_in, d_out in SHAPES.values())
    assert new.routing_parameters() == []
    assert (new.routes_by, new.foldable, new.averageable, new.mixing(torch.zeros(1, 1))) == ("token", False, False, {})
    assert new.average() is new.like_average() is new.composed() is new


def test_hydra_lora_mixes_the_b_of_each_token() -> None:
    adapter, x = hydra(), torch.randn(7, 6)
    layer = nn.ModuleDict({"v": nn.Linear(6, 4)})
    model = nn.ModuleDict({"a": layer})
    plain = layer["v"](x)
    inject(model, ["v"])
    adapted = layer["v"]
    assert isinstance(adapted, AdaptedLinear)
    adapted.token_routing = adapter.token_routing
    slots = {name.removeprefix("a.v."): slot for name, slot in adapter().items() if name.startswith("a.v.")}
    given = torch.func.functional_call(adapted, slots, (x,))
    stack = list(adapter.stacks).index((6, 4))
    a, b, router = (bank[stack].detach() for bank in (adapter.lora_A, adapter.lora_B, adapter.router))
    weights = torch.softmax(x @ router[0, 0].T, -1)
    outputs = torch.stack([x @ a[0, 0, 0, 0] @ b[0, 0, 0, expert] for expert in range(3)], -1)
    torch.testing.assert_close(given, plain + 4.0 / 2 * (outputs * weights[:, None]).sum(-1))


def test_every_new_task_has_its_own_experts_and_router() -> None:
    before = hydra()
    after = before.for_new_tasks([1, 2], train_skills=True)
    assert isinstance(after, HydraLoRA)
    assert after.runs == 2
    assert all(parameter.requires_grad for parameter in after.parameters())
    for old, new in zip(before.banks(), after.banks(), strict=True):
        assert torch.equal(new, old.expand_as(new))
    with torch.no_grad():
        after.router[0][1].zero_()
    chosen = after.select([1])
    assert not chosen.router[0].any()
    assert chosen.router[1].any()


@pytest.mark.parametrize("adapter", [hydra(runs=2), Arrow.of(pool(), NAMES, ArrowOptions(top_k=2, temperature=0.5))])
def test_files_keep_experts_their_router_and_how_it_routes(adapter: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "adapters.safetensors"
    save_adapter(adapter, path)
    again = load_adapter(path)
    assert type(again) is type(adapter)
    assert again.token_routing == adapter.token_routing
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_direction_is_the_top_right_singular_vector_of_the_update_whatever_pads_it() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 9, 3), torch.randn(5, 3, 7)
    b[4] = 0
    found_directions = directions(a, b)
    padded = directions(nn.functional.pad(a, (0, 2)), nn.functional.pad(b, (0, 0, 0, 2)))
    for update, direction, also in zip((a @ b).mT[:4], found_directions, padded, strict=False):
        expected = torch.linalg.svd(update).Vh[0]
        for each in (direction, also):
            torch.testing.assert_close(each * (each @ expected).sign(), expected)
    assert not found_directions[4].any()
    assert not padded[4].any()
    wide = directions(torch.randn(3, 8), torch.randn(8, 5))  # a rank beyond the width
    assert wide.norm().item() == pytest.approx(1.0)


class Adapters:
    """These are LoRAs of peft, in folders, and the pool that they make here.

    One of the directions of each is far larger than the others, so that peft's iteration has come to it; the pool pads ranks
    and folds scalings in, as its import does.

    Attributes:
        paths: the folders.
        pool: an adapter a run, for a backbone that has its slots.
    """

    def __init__(self, backbone: T5ForConditionalGeneration, folder: Path, *, rank: int = 3) -> None:
        self.paths = {name: str(folder / name) for name in NAMES}
        plain = deepcopy(backbone)
        config = InventoryConfig(rank=rank + 1, alpha=rank + 1.0)
        self.pool = Inventory(inject(backbone, ["q", "wo"]), config, runs=len(NAMES))
        lora = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q", "wo"], init_lora_weights=False)
        wrapped = peft.get_peft_model(plain, lora, NAMES[0])
        for name in NAMES[1:]:
            wrapped.add_adapter(name, lora)
        wrapped.save_pretrained(str(folder))
        torch.manual_seed(0)
        with torch.no_grad():
            for stack, layers in enumerate(self.pool.stacks.values()):
                for run, name in enumerate(NAMES):
                    for place, layer in enumerate(layers):
                        module = wrapped.base_model.model.get_submodule(layer)
                        a, b = module.lora_A[name].weight, module.lora_B[name].weight
                        a.normal_(std=0.1)[0] *= 10
                        b.normal_(std=0.1)[:, 0] *= 10
                        self.pool.lora_A[stack][run, place, 0, 0] = nn.functional.pad(a.T, (0, 1))
                        self.pool.lora_B[stack][run, place, 0, 0] = nn.functional.pad(2 * b.T, (0, 0, 0, 1))
        wrapped.save_pretrained(str(folder))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("general", [[], ["three"]])
@torch.no_grad()
def test_arrow_equals_pefts_over_the_same_adapters(
    tiny_t5: T5ForConditionalGeneration, tmp_path: Path, general: list[str]
) -> None:
    plain, made = deepcopy(tiny_t5), Adapters(tiny_t5, tmp_path)
    arrow = Arrow.of(made.pool, NAMES, ArrowOptions(top_k=2, temperature=0.7, general=general))
    ids, targets = torch.randint(3, 40, (2, 5)), torch.randint(3, 40, (2, 3))
    ours = logits_of(AdaptedModel(tiny_t5, arrow).eval(), None, ids, targets)
    without = plain(input_ids=ids, labels=targets).logits
    reference = create_arrow_model(
        plain,
        [path for name, path in made.paths.items() if name not in general],
        ArrowConfig(top_k=2, router_temperature=0.7, use_gks=bool(general), rng_seed=0),
        general_adapter_paths=[made.paths[name] for name in general],
    ).eval()
    # on some CPUs peft's fp32 and ours are 2e-5 apart, the one 1.4e-5 from peft's in float64, the other 0.7e-5
    torch.testing.assert_close(ours, reference(input_ids=ids, labels=targets).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, without, atol=1e-2)


def update(arrow: Arrow, x: Tensor, layer: str) -> Tensor:
    """What experts add to a layer's output."""
    slots = {name.rpartition(".")[2]: slot for name, slot in arrow().items() if name.startswith(layer)}
    assert arrow.token_routing is not None
    return mixed(x, slots["down"], slots["up"], arrow.token_routing(x, slots["router"]))


def test_the_order_of_a_pool_does_not_matter() -> None:
    adapters, x, options = pool(), torch.randn(1, 5, 6), ArrowOptions(top_k=2, general=["two"])
    order = [2, 0, 3, 1]
    one = Arrow.of(adapters, NAMES, options)
    other = Arrow.of(adapters.select(order), [NAMES[place] for place in order], options)
    for layer in SHAPES:
        torch.testing.assert_close(update(one, x, layer), update(other, x, layer))


@pytest.mark.parametrize("top_k", [1, 3])
def test_one_adapter_is_that_adapter(top_k: int) -> None:
    """Weights are exactly 1, so the update is the same product."""
    adapter, x = pool(1), torch.randn(1, 5, 6)
    alone = Arrow.of(adapter, NAMES[:1], ArrowOptions(top_k=top_k))
    for layer in SHAPES:
        a, b = (adapter()[f"{layer}.{slot}"] for slot in ("down", "up"))
        assert torch.equal(update(alone, x, layer), x @ a.mT @ b)


def test_all_tasks_share_what_arrow_leaves_as_it_is() -> None:
    arrow = Arrow.of(pool(), NAMES, ArrowOptions())
    assert (arrow.runs, arrow.skills, arrow.routes_by) == (1, len(NAMES), "token")
    assert not any(parameter.requires_grad for parameter in arrow.parameters())
    assert arrow.for_new_tasks([1, 2, 3], train_skills=False) is arrow.select([2]) is arrow


def test_what_is_left_out_of_a_run_is_as_if_it_were_not_in_the_pool(tmp_path: Path) -> None:
    """Of a general adapter, or one of another name, nothing changes."""
    adapters, x, options = pool(), torch.randn(1, 5, 6), ArrowOptions(top_k=2, general=["two"])
    whole = Arrow.of(adapters, NAMES, options)
    runs = Arrow.of(adapters, NAMES, options, left_out=["three", None, "five", "two"])
    assert runs.runs == 4
    path = tmp_path / "adapters.safetensors"
    save_adapter(runs, path)
    again = load_adapter(path)
    assert isinstance(again, Arrow)
    assert again.left_out == (1, None, None, None)
    rest = Arrow.of(adapters.select([0, 1, 3]), ["one", "two", "four"], options)
    for layer in SHAPES:
        torch.testing.assert_close(update(again.select([2, 3]), x, layer), update(whole, x, layer))
        torch.testing.assert_close(update(again.select([0]), x, layer), update(rest, x, layer))
        together = update(again, x.expand(4, -1, -1), layer)
        torch.testing.assert_close(together, torch.stack([update(rest, x, layer)] + 3 * [update(whole, x, layer)]).squeeze(1))


def test_general_adapters_are_of_the_pool_and_leave_some() -> None:
    with pytest.raises(ParamsError, match=r"options.general: unknown adapter of the pool 'thre'; did you mean 'three'"):
        Arrow.of(pool(), NAMES, ArrowOptions(general=["thre"]))
    with pytest.raises(ParamsError, match=r"options.general: names all adapters of the pool, and leaves no expert"):
        Arrow.of(pool(), NAMES, ArrowOptions(general=NAMES))
    with pytest.raises(TypeError, match="arrow routes over LoRAs, and the pool has ia3"):
        Arrow.of(Scales(SHAPES), ["one"], ArrowOptions())
