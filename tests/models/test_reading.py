"""The means of what layers read, whatever lies beside a row in the batch, against each row alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import Ragged
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.reading import averaging, means_of
from tests.adapters.test_inventory import randomised
from tests.models.families import decoder
from tests.models.made import ragged

INPUTS = [[3, 4, 5, 6], [7, 8], [9]]
TARGETS = [[11, 12], [13, 14, 15, 1], [16, 1]]
"""The longest input and the longest target are equally long, so that no shape tells one from the other."""
MORE = [[5, 1], [6, 1], [7, 8, 1]]


def attached(backbone: PreTrainedModel) -> AdaptedModel:
    torch.manual_seed(0)
    return AdaptedModel(backbone, randomised(Inventory(inject(backbone, "full")))).eval()


def rows(of: list[list[int]]) -> Ragged:
    return ragged(torch.tensor([[*row, *[0] * (max(map(len, of)) - len(row))] for row in of]), mask_of(of))


def mask_of(of: list[list[int]]) -> Tensor:
    return torch.tensor([[column < len(row) for column in range(max(map(len, of)))] for row in of])


def means(model: AdaptedModel, inputs: list[list[int]], targets: list[list[int]]) -> dict[str, Tensor]:
    with model.reading(rows(inputs), rows(targets)) as seen:
        model(None, rows(inputs), rows(targets), with_logits=True)
    return seen


def assert_each_is_as_alone(model: AdaptedModel) -> None:
    """Of one target an input, and of two."""
    assert model.adapter is not None
    together = means(model, INPUTS, TARGETS)
    assert together.keys() == model.adapter.shapes.keys()
    for row, (prompt, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        for layer, alone in means(model, [prompt], [target]).items():
            torch.testing.assert_close(together[layer][row : row + 1], alone, rtol=1e-5, atol=1e-5, msg=layer)
    choices = [target for pair in zip(TARGETS, MORE, strict=True) for target in pair]
    of_all = means(model, INPUTS, choices)
    for row, prompt in enumerate(INPUTS):
        for layer, alone in means(model, [prompt], choices[2 * row : 2 * row + 2]).items():
            torch.testing.assert_close(of_all[layer][row : row + 1], alone, rtol=1e-5, atol=1e-5, msg=layer)


def test_rows_of_t5(tiny_t5: T5ForConditionalGeneration) -> None:
    assert_each_is_as_alone(attached(tiny_t5))


def test_rows_of_bart(tiny_bart: BartForConditionalGeneration) -> None:
    assert_each_is_as_alone(attached(tiny_bart))


@pytest.mark.parametrize("packs", [True, False])
def test_rows_of_a_decoder(packs: bool) -> None:
    backbone: Any = deepcopy(decoder("llama"))
    setattr(backbone, PACKS, packs)
    assert_each_is_as_alone(attached(backbone))


def test_packing_moves_nothing() -> None:
    backbone: Any = deepcopy(decoder("llama"))
    model = attached(backbone)
    choices = [target for pair in zip(TARGETS, MORE, strict=True) for target in pair]
    seen = []
    for packs in (True, False):
        setattr(backbone, PACKS, packs)
        seen.append(means(AdaptedModel(backbone, model.adapter).eval(), INPUTS, choices))
    for layer, mean in seen[0].items():
        torch.testing.assert_close(mean, seen[1][layer], rtol=1e-5, atol=1e-5, msg=layer)


def test_a_row_without_padding_is_the_mean_of_what_each_layer_is_called_with(tiny_t5: T5ForConditionalGeneration) -> None:
    model = attached(tiny_t5)
    read: dict[str, Tensor] = {}
    assert model.adapter is not None
    for name in model.adapter.shapes:
        tiny_t5.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
    for name, mean in means(model, INPUTS[:1], TARGETS[1:2]).items():
        torch.testing.assert_close(mean, read[name].mean(1))


def test_nothing_is_taken_after_the_context(tiny_t5: T5ForConditionalGeneration) -> None:
    model = attached(tiny_t5)
    seen = means(model, INPUTS, TARGETS)
    before = dict(seen)
    model(None, rows(INPUTS[::-1]), rows(TARGETS), with_logits=True)
    assert all(seen[layer] is mean for layer, mean in before.items())


def test_tokens_of_no_row_do_not_count() -> None:
    given = averaging(torch.tensor([0, 0, -1, 2]), 3)
    assert given.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_a_layer_that_reads_a_part_of_the_tokens_has_no_mean() -> None:
    model = nn.ModuleDict({"all": nn.Linear(2, 2), "expert": nn.Linear(2, 2)})
    of_tokens = torch.full((1, 3), 1 / 3)
    with means_of(model, ["all", "expert"], lambda _layer, _x: of_tokens) as seen:
        model["all"](torch.ones(1, 3, 2))
        model["expert"](torch.ones(2, 2))
    assert seen.keys() == {"all"}
    torch.testing.assert_close(seen["all"], torch.ones(1, 2))
