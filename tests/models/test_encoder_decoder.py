"""What is an encoder-decoder's alone: the shift of its targets, several of them an input, and T5's forward of our own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BartForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.experts import HydraLoRA
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.data.batches import IGNORED, Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.encoder_decoder import EncoderDecoder, shift_right
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from tests.adapters.test_inventory import randomised
from tests.models.families import ENCODER_DECODERS, END, PAD, changed_weights, encoder_decoder, encoder_decoder_logits, merged
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


def test_the_forward_of_t5_is_left_to_transformers_where_tokens_are_routed(tiny_t5: T5ForConditionalGeneration) -> None:
    adapter = HydraLoRA(inject(tiny_t5, "full"), InventoryConfig(skills=2))
    kind = EncoderDecoder(tiny_t5, adapter, Speed())
    assert kind.fast is None
    assert kind.greedy(adapter()) is None
    with pytest.raises(ParamsError, match=r"--compile .* cannot be used: the adapters route tokens in each layer"):
        EncoderDecoder(tiny_t5, adapter, Speed(compile=True))


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


INPUTS = [[7, 9, 4, 30, 11, 60, 61, 8, 22, 90, 3, 4, 5], [8, 12], [5], [16, 17, 18, 70]]
TARGETS = [[5, 6, 13, 2], [22, 2], [17, 18, 19, 20, 21, 2], [33], [], [40, 2], [9, 10, 2], [11]]
"""Two of each input, one of which is no choice; two groups of two inputs."""
TASKS = torch.tensor([[2, 0]])
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def rows(of: Sequence[Sequence[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in of for token in row]), tuple(map(len, of)))


@cache
def family(kind: str) -> tuple[PreTrainedModel, AdaptedModel]:
    """A tiny model as transformers made it, and a copy with adapters."""
    plain = encoder_decoder(kind)
    backbone: Any = deepcopy(plain)
    torch.manual_seed(0)
    adapter = Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0), tasks=3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return plain, AdaptedModel(backbone, adapter).eval()


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_groups_of_every_family_have_the_losses_and_gradients_of_each_target_alone(kind: str) -> None:
    plain, model = family(kind)
    assert model.adapter is not None
    slots, parameters = model.adapter(TASKS), list(model.adapter.parameters())
    logits = model(TASKS, rows(INPUTS), rows(TARGETS), with_logits=True)
    for smoothing in (0.0, 0.1):
        losses = model(TASKS, rows(INPUTS), rows(TARGETS), label_smoothing=smoothing)
        total = torch.zeros(())
        for row, target in enumerate(TARGETS):
            assert not losses[row, len(target) :].any()
            if target:
                weights = changed_weights(plain, slots, row // 4)
                expected = encoder_decoder_logits(plain, weights, INPUTS[row // 2], target)
                by_hand = F.cross_entropy(expected, torch.tensor(target), reduction="none", label_smoothing=smoothing)
                torch.testing.assert_close(logits[row, : len(target)], expected, **CLOSE)
                torch.testing.assert_close(losses[row, : len(target)], by_hand, **CLOSE)
                total = total + (by_hand * (row + 1)).sum()
        counted = (losses * torch.arange(1, 1 + len(TARGETS))[:, None]).sum()
        given, expected_gradients = (torch.autograd.grad(each, parameters, retain_graph=True) for each in (counted, total))
        for one, other in zip(given, expected_gradients, strict=True):
            assert other.any()
            assert (one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ENCODER_DECODERS)
@torch.no_grad()
def test_answers_of_every_family_are_those_of_each_input_alone(kind: str, beams: int) -> None:
    plain, model = family(kind)
    assert model.adapter is not None
    options: dict[str, Any] = {"num_beams": beams, "do_sample": False, "max_new_tokens": 5}
    answers = model.generate(TASKS, rows(INPUTS), **options)
    for row, (answer, source) in enumerate(zip(answers, INPUTS, strict=True)):
        (alone,) = merged(plain, model.adapter(TASKS), row // 2).generate(torch.tensor([source]), **options)
        assert answer[: len(alone) - 1].tolist() == alone[1:].tolist()
        assert {*answer[len(alone) - 1 :].tolist()} <= {PAD, END}
    assert len({tuple(answer.tolist()) for answer in answers}) > 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_generation_hands_the_output_layer_contiguous_rows(kind: str, beams: int) -> None:
    """Of slices, torch copies a frozen bf16 matrix for each row; causal models need a remedy, these do not."""
    model: Any = deepcopy(encoder_decoder(kind))
    seen: list[bool] = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _layer, given: seen.append(given[0].is_contiguous()))
    inputs = Ragged(torch.arange(3, 12), (4, 2, 3))
    AdaptedModel(model, None).generate(None, inputs, max_new_tokens=3, do_sample=False, num_beams=beams)
    assert len(seen) > 1
    assert all(seen)
