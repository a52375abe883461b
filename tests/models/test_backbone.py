"""The three things that a backbone can do, against transformers called by hand, a row alone and without padding at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import Ragged
from mhrctl.models.attach import inject
from mhrctl.models.backbone import Backbone
from mhrctl.models.encoder_decoder import EncoderDecoder
from mhrctl.models.folding import folded
from mhrctl.models.speed import Speed

INPUTS = [[7, 9, 4, 30, 11], [8, 12]]
TARGETS = [[5, 6, 13, 2], [22, 2]]
SEVERAL = [[5, 6, 13, 2], [], [9, 2], [22, 2], [17, 18, 19, 2], [33]]
"""Three of each input, one of which is no choice."""
LAYERS = {"tiny_t5": ["q", "wo"], "tiny_bart": ["q_proj", "fc1"]}


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in rows for token in row]), tuple(map(len, rows)))


def encoder_decoder(model: PreTrainedModel, adapter: Inventory | None) -> Backbone:
    return EncoderDecoder(model, adapter, Speed())


Kind = tuple[Backbone, Mapping[str, Tensor], Callable[[], Any]]


@pytest.fixture(params=[(name, adapted) for name in LAYERS for adapted in (False, True)], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A backbone, slots of adapters or none, and what puts the same adapters into its weights."""
    name, adapted = request.param
    model = request.getfixturevalue(name).requires_grad_(False)
    if not adapted:
        return encoder_decoder(model, None), {}, nullcontext
    torch.manual_seed(1)
    adapter = Inventory(inject(model, LAYERS[name]), InventoryConfig(rank=2, alpha=2.0)).eval()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.5)
    return encoder_decoder(model, adapter), adapter(), lambda: folded(model, adapter)


@torch.no_grad()
def logits_by_hand(model: Any, source: list[int], target: list[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
    return logits


@pytest.mark.parametrize("targets", [TARGETS, SEVERAL], ids=["one", "several"])
def test_losses_and_logits_are_those_of_each_target_alone(kind: Kind, targets: list[list[int]]) -> None:
    backbone, slots, as_weights = kind
    with torch.no_grad():
        logits = backbone.logits(slots, ragged(INPUTS), ragged(targets))
        losses = backbone.token_losses(slots, ragged(INPUTS), ragged(targets))
        smoothed = backbone.token_losses(slots, ragged(INPUTS), ragged(targets), label_smoothing=0.1)
    longest = max(map(len, targets))
    assert logits.shape[:2] == losses.shape == (len(targets), longest)
    assert losses.dtype == torch.float32
    with as_weights():
        for row, target in enumerate(targets):
            assert not losses[row, len(target) :].any()
            if not target:
                continue
            expected = logits_by_hand(backbone.model, INPUTS[row * len(INPUTS) // len(targets)], target)
            torch.testing.assert_close(logits[row, : len(target)], expected, rtol=1e-4, atol=1e-5)
            for given, smoothing in ((losses, 0.0), (smoothed, 0.1)):
                by_hand = F.cross_entropy(expected, torch.tensor(target), reduction="none", label_smoothing=smoothing)
                torch.testing.assert_close(given[row, : len(target)], by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_each_input_alone_without_the_start(kind: Kind, beams: int) -> None:
    backbone, slots, as_weights = kind
    model: Any = backbone.model
    options = {"num_beams": beams, "do_sample": False, "min_new_tokens": 3, "max_new_tokens": 6}
    answers = backbone.generate(slots, ragged(INPUTS), **options)
    assert answers.shape[0] == 2
    assert 3 <= answers.shape[1] <= 6
    with as_weights():
        for answer, source in zip(answers, INPUTS, strict=True):
            (alone,) = model.generate(torch.tensor([source]), **options)
            assert alone[0] == model.config.decoder_start_token_id
            assert answer[: len(alone) - 1].tolist() == alone[1:].tolist()
            assert (answer[len(alone) - 1 :] == model.config.pad_token_id).all()


def test_slots_make_a_difference_and_leave_none(kind: Kind) -> None:
    backbone, slots, _ = kind
    with torch.no_grad():
        before = logits_by_hand(backbone.model, *INPUTS)
        backbone.token_losses(slots, ragged(INPUTS), ragged(TARGETS))
        backbone.generate(slots, ragged(INPUTS), max_new_tokens=2)
        attached, bare = (backbone.logits(each, ragged(INPUTS), ragged(TARGETS)) for each in (slots, {}))
    assert torch.equal(attached, bare) == (not slots)
    assert torch.equal(logits_by_hand(backbone.model, *INPUTS), before)
