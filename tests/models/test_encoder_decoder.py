"""What is an encoder-decoder's alone: the shift of its targets, several of them an input, and T5's forward of our own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import BartForConditionalGeneration, T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.data.batches import IGNORED
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.encoder_decoder import EncoderDecoder, shift_right
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from tests.adapters.test_inventory import randomised
from tests.models.made import logits_of, ragged


def test_shift_right_is_t5s_own(tiny_t5: T5ForConditionalGeneration) -> None:
    labels = torch.tensor([[5, 6, 1], [7, 1, IGNORED]])
    assert torch.equal(shift_right(labels, start=0, pad=0), tiny_t5.prepare_decoder_input_ids_from_labels(labels))


def test_shift_right_is_barts_own(tiny_bart: BartForConditionalGeneration) -> None:
    """Its decoder starts with the end of sentences, which is no padding."""
    labels = torch.tensor([[5, 6, 2], [7, 2, IGNORED]])
    assert (tiny_bart.config.decoder_start_token_id, tiny_bart.config.pad_token_id) == (2, 1)
    assert torch.equal(shift_right(labels, start=2, pad=1), tiny_bart.prepare_decoder_input_ids_from_labels(labels))


def routed(backbone: T5ForConditionalGeneration) -> Inventory:
    torch.manual_seed(0)
    return randomised(Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=2), tasks=3)).eval()


def test_targets_of_an_input_are_scored_as_each_alone(tiny_t5: T5ForConditionalGeneration) -> None:
    """The encoder runs once an input: its states are repeated for the targets, with their row's adapters."""
    model, ids = AdaptedModel(tiny_t5, routed(tiny_t5)).eval(), torch.randint(3, 40, (2, 5))
    inputs = ragged(ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    targets, tasks = torch.randint(3, 40, (6, 3)), torch.tensor([[1, 2]])
    together = model(tasks, inputs, ragged(targets), with_logits=True)
    for choice in range(3):
        alone = model(tasks, inputs, ragged(targets[choice::3]), with_logits=True)
        torch.testing.assert_close(together[choice::3], alone)


def test_the_encoder_runs_once_an_input_however_many_choices(tiny_t5: T5ForConditionalGeneration) -> None:
    rows: list[int] = []
    tiny_t5.get_encoder().register_forward_hook(lambda _m, _a, output: rows.append(len(output[0])))
    ids = torch.randint(2, 64, (2, 5))
    logits = logits_of(AdaptedModel(tiny_t5, None), None, ids, torch.randint(2, 64, (6, 3)))
    assert (len(logits), rows) == (6, [2])


@pytest.mark.parametrize("forward", [True, False])
def test_losses_are_those_of_the_logits(tiny_t5: T5ForConditionalGeneration, forward: bool) -> None:
    adapter = routed(tiny_t5)
    kind = EncoderDecoder(tiny_t5, adapter, Speed(forward=forward))
    assert (kind.fast is not None) == forward
    labels, slots = torch.tensor([[5, 6, 1], [7, 1, IGNORED]]), adapter(torch.tensor([[1, 2]]))
    inputs, targets = ragged(torch.randint(3, 40, (2, 5))), ragged(labels, labels >= 0)
    losses = kind.token_losses(slots, inputs, targets, label_smoothing=0.1)
    torch.testing.assert_close(losses, token_losses(kind.logits(slots, inputs, targets), labels, label_smoothing=0.1))
    assert losses[1, 2] == 0


def test_the_forward_of_t5_is_left_to_transformers_where_weights_are_trained(tiny_t5: T5ForConditionalGeneration) -> None:
    assert EncoderDecoder(tiny_t5.requires_grad_(False), Weights.of(tiny_t5), Speed()).fast is None
    with pytest.raises(ParamsError, match=r"--checkpointing .* cannot be used: whole weights are trained"):
        EncoderDecoder(tiny_t5, Weights.of(tiny_t5), Speed(checkpointing=True))


def test_other_architectures_have_no_forward_of_ours(tiny_bart: BartForConditionalGeneration) -> None:
    inventory = Inventory(inject(tiny_bart, ["q_proj"]))
    assert EncoderDecoder(tiny_bart, inventory, Speed()).fast is None
    with pytest.raises(ParamsError, match=r"--compile .* BartForConditionalGeneration is not transformers' T5"):
        AdaptedModel(tiny_bart, inventory, speed=Speed(compile=True))


def test_dropout_of_the_updates_inputs_is_transformers_forward_while_training(tiny_t5: T5ForConditionalGeneration) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, "full", dropout=0.5), InventoryConfig(dropout=0.5)))
    model = AdaptedModel(tiny_t5, inventory)
    rows = ragged(torch.randint(3, 40, (2, 5)))

    def losses() -> Tensor:
        torch.manual_seed(0)
        values: Tensor = model(None, rows, rows)
        return values

    model.train()
    noisy = losses()
    model.eval()
    assert not torch.allclose(noisy, losses())
