"""A backbone with adapters: another architecture, choices, generation, and whose forward runs."""

from __future__ import annotations

import pytest
import torch
from transformers import BartForConditionalGeneration, T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from tests.adapters.test_inventory import randomised


def test_another_architecture_takes_adapters_by_its_own_names(tiny_bart: BartForConditionalGeneration) -> None:
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


def routed(backbone: T5ForConditionalGeneration) -> AdaptedModel:
    torch.manual_seed(0)
    inventory = Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=2), tasks=3)
    return AdaptedModel(backbone, randomised(inventory)).eval()


def test_rows_of_a_batch_have_the_adapters_of_their_task(tiny_t5: T5ForConditionalGeneration) -> None:
    model, ids = routed(tiny_t5), torch.randint(3, 40, (3, 5))
    together = model(torch.tensor([[2, 0, 1]]), input_ids=ids, decoder_input_ids=ids[:, :2])
    for row, task in enumerate((2, 0, 1)):
        alone = model(torch.tensor([[task]]), input_ids=ids[row, None], decoder_input_ids=ids[row, None, :2])
        torch.testing.assert_close(together[row, None], alone)
    assert not torch.allclose(together, model(torch.tensor([[0, 0, 0]]), input_ids=ids, decoder_input_ids=ids[:, :2]))


def test_targets_of_an_input_are_scored_as_each_alone(tiny_t5: T5ForConditionalGeneration) -> None:
    """The encoder runs once an input: its states are repeated for the targets, with their row's adapters."""
    model, ids = routed(tiny_t5), torch.randint(3, 40, (2, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    targets, tasks = torch.randint(3, 40, (6, 3)), torch.tensor([[1, 2]])
    together = model(tasks, input_ids=ids, attention_mask=mask, decoder_input_ids=targets)
    for choice in range(3):
        alone = model(tasks, input_ids=ids, attention_mask=mask, decoder_input_ids=targets[choice::3])
        torch.testing.assert_close(together[choice::3], alone)


@pytest.mark.parametrize("forward", [True, False])
def test_losses_are_those_of_the_logits(tiny_t5: T5ForConditionalGeneration, forward: bool) -> None:
    model = routed(tiny_t5)
    model = AdaptedModel(tiny_t5, model.adapter, speed=Speed(forward=forward)).eval()
    assert (model.fast is not None) == forward
    ids, labels, tasks = torch.randint(3, 40, (2, 5)), torch.tensor([[5, 6, 1], [7, 1, -100]]), torch.tensor([[1, 2]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": labels.clamp(min=0)}
    losses = model(tasks, labels=labels, label_smoothing=0.1, **inputs)
    torch.testing.assert_close(losses, token_losses(model(tasks, **inputs), labels, label_smoothing=0.1))
    assert losses[1, 2] == 0


def test_generation_has_the_adapters_of_each_row_and_beam(tiny_t5: T5ForConditionalGeneration) -> None:
    model, ids = routed(tiny_t5), torch.randint(3, 40, (2, 5))
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    both = model.generate(torch.tensor([[0, 2]]), input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    for row, task in enumerate((0, 2)):
        one = ids[row, None]
        alone = model.generate(torch.tensor([[task]]), input_ids=one, attention_mask=torch.ones_like(one), **options)
        assert both[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_nothing_of_a_call_is_kept_in_the_backbone(tiny_t5: T5ForConditionalGeneration) -> None:
    ids = torch.randint(3, 40, (2, 5))
    before = tiny_t5.requires_grad_(False)(input_ids=ids, decoder_input_ids=ids).logits
    model = routed(tiny_t5)
    assert not torch.allclose(model(torch.tensor([[0, 2]]), input_ids=ids, decoder_input_ids=ids), before)
    assert torch.equal(tiny_t5(input_ids=ids, decoder_input_ids=ids).logits, before)


def test_the_forward_of_t5_is_left_to_transformers_where_weights_are_trained(tiny_t5: T5ForConditionalGeneration) -> None:
    assert AdaptedModel(tiny_t5.requires_grad_(False), Weights.of(tiny_t5)).fast is None
    with pytest.raises(ParamsError, match=r"--checkpointing .* cannot be used: whole weights are trained"):
        AdaptedModel(tiny_t5, Weights.of(tiny_t5), speed=Speed(checkpointing=True))


def test_dropout_of_the_updates_inputs_is_transformers_forward_while_training(tiny_t5: T5ForConditionalGeneration) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, "full", dropout=0.5), InventoryConfig(dropout=0.5)))
    model = AdaptedModel(tiny_t5, inventory)
    ids = torch.randint(3, 40, (2, 5))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}

    def losses() -> torch.Tensor:
        torch.manual_seed(0)
        values: torch.Tensor = model(None, labels=ids, **inputs)
        return values

    model.train()
    noisy = losses()
    model.eval()
    assert not torch.allclose(noisy, losses())
