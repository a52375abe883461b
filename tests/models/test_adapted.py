"""A backbone with adapters: another architecture, rows of several tasks, and generation."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BartForConditionalGeneration, T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.experts import HydraLoRA
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.token_routing import TokenRouting
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from tests.adapters.test_inventory import randomised
from tests.models.made import logits_of, ragged


def test_another_architecture_takes_adapters_by_its_own_names(tiny_bart: BartForConditionalGeneration) -> None:
    torch.manual_seed(0)
    with pytest.raises(ParamsError, match="no linear layer is named 'k'"):
        inject(tiny_bart, ["k", "v"])
    ids = torch.randint(4, 40, (2, 5))
    before = tiny_bart(input_ids=ids, labels=ids).logits
    inventory = Inventory(
        inject(tiny_bart, ["q_proj", "fc1"]), InventoryConfig(heads=4, skills=2, granularity="coder"), tasks=2
    ).eval()
    assert inventory.parts == ["model.encoder", "model.decoder"]
    model = AdaptedModel(tiny_bart, inventory).eval()
    torch.testing.assert_close(logits_of(model, torch.tensor([[0, 1]]), ids, ids), before)
    randomised(inventory)
    assert not torch.allclose(logits_of(model, torch.tensor([[0, 1]]), ids, ids), before)


def routed(backbone: T5ForConditionalGeneration) -> AdaptedModel:
    torch.manual_seed(0)
    inventory = Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=2), tasks=3)
    return AdaptedModel(backbone, randomised(inventory)).eval()


def test_rows_of_a_batch_have_the_adapters_of_their_task(tiny_t5: T5ForConditionalGeneration) -> None:
    model, ids = routed(tiny_t5), torch.randint(3, 40, (3, 5))
    together = logits_of(model, torch.tensor([[2, 0, 1]]), ids, ids[:, :2])
    for row, task in enumerate((2, 0, 1)):
        alone = logits_of(model, torch.tensor([[task]]), ids[row, None], ids[row, None, :2])
        torch.testing.assert_close(together[row, None], alone)
    assert not torch.allclose(together, logits_of(model, torch.tensor([[0, 0, 0]]), ids, ids[:, :2]))


def test_generation_has_the_adapters_of_each_row_and_beam(tiny_t5: T5ForConditionalGeneration) -> None:
    model, ids = routed(tiny_t5), torch.randint(3, 40, (2, 5))
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    both = model.generate(torch.tensor([[0, 2]]), ragged(ids), **options)
    for row, task in enumerate((0, 2)):
        alone = model.generate(torch.tensor([[task]]), ragged(ids[row, None]), **options)
        assert both[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_nothing_of_a_call_is_kept_in_the_backbone(tiny_t5: T5ForConditionalGeneration) -> None:
    ids = torch.randint(3, 40, (2, 5))
    before = tiny_t5.requires_grad_(False)(input_ids=ids, labels=ids).logits
    model = routed(tiny_t5)
    assert not torch.allclose(logits_of(model, torch.tensor([[0, 2]]), ids, ids), before)
    assert torch.equal(tiny_t5(input_ids=ids, labels=ids).logits, before)


def test_adapters_of_one_backbone_route_tokens_each_in_its_own_way(tiny_t5: T5ForConditionalGeneration) -> None:
    """The harness answers for several cells with one."""
    shapes, ids = inject(tiny_t5, "full"), torch.randint(3, 40, (2, 5))
    torch.manual_seed(0)
    first = HydraLoRA(shapes, InventoryConfig(skills=3))
    randomised(first)
    second, plain = copy.deepcopy(first), randomised(Inventory(shapes))
    second.token_routing = TokenRouting(top=1)
    models = [AdaptedModel(tiny_t5, adapter).eval() for adapter in (first, second, plain)]
    alone = [logits_of(model, None, ids, ids) for model in models]
    again = [logits_of(model, None, ids, ids) for model in reversed(models)]
    for one, other in zip(alone, reversed(again), strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(alone[0], alone[1])


def test_tokens_are_routed_in_answers_as_in_losses(tiny_t5: T5ForConditionalGeneration) -> None:
    """Without a cache of any routing: each step of generation routes its own token."""
    torch.manual_seed(0)
    adapter = HydraLoRA(inject(tiny_t5, "full"), InventoryConfig(skills=3), runs=2)
    randomised(adapter)
    model, ids = AdaptedModel(tiny_t5, adapter).eval(), torch.randint(3, 40, (4, 5))
    answers = model.generate(None, ragged(ids), max_new_tokens=4, do_sample=False)
    logits = logits_of(model, None, ids, answers)
    assert torch.equal(logits.argmax(-1), answers)
    for run, rows in enumerate((slice(0, 2), slice(2, 4))):
        alone = AdaptedModel(tiny_t5, adapter.select([run])).eval()
        torch.testing.assert_close(logits_of(alone, None, ids[rows], answers[rows]), logits[rows])
