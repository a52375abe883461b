"""How a batch becomes losses, against the pieces that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import DataParallel
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.inventory import Inventory
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training.losses import choice_scores, multiple_choice_losses, run_losses, unlikelihood_losses
from mhrctl.training.objective import Objective, objective_of
from tests.adapters.test_inventory import randomised


def model_of(backbone: T5ForConditionalGeneration) -> AdaptedModel:
    torch.manual_seed(0)
    return AdaptedModel(backbone, randomised(Inventory(inject(backbone, "full")))).eval()


def batch_of(*, with_choices: bool) -> Batch:
    """Two rows of three and two choices, the second and the first of which are right."""
    choices = [[[5, 1], [6, 7, 1], [8, 1]], [[9, 1], [4, 4, 1]]]
    samples = [
        Sample(0, np.array([3, 4 + row, 1]), np.array(of_row[gold]), tuple(map(np.array, of_row)), gold)
        for row, (of_row, gold) in enumerate(zip(choices, (1, 0), strict=True))
    ]
    return collate(samples, [[0, 0]], with_choices=with_choices)


@pytest.mark.parametrize("kind", ["token_mean", "example_sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_choices_it_is_the_loss_of_the_targets(
    tiny_t5: T5ForConditionalGeneration, kind: str, smoothing: float
) -> None:
    model, batch = model_of(tiny_t5), batch_of(with_choices=False)
    objective = Objective(kind, smoothing)
    assert not objective.reads_choices
    expected = run_losses(objective.token_losses(model, batch, label_smoothing=smoothing), batch.labels, runs=1, kind=kind)
    assert torch.equal(objective(model, batch, runs=1), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("mc", "unlikelihood"), [(0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_losses_of_choices_are_added_with_their_weights(
    tiny_t5: T5ForConditionalGeneration, smoothing: float, mc: float, unlikelihood: float
) -> None:
    model, batch, plain = model_of(tiny_t5), batch_of(with_choices=True), batch_of(with_choices=False)
    objective = Objective("token_mean", smoothing, mc_weight=mc, unlikelihood_weight=unlikelihood, length_norm=0.5)
    assert objective.reads_choices == bool(mc or unlikelihood)
    by_token, labels = objective.token_losses(model, batch).view(2, 3, -1), batch.labels.view(2, 3, -1)
    scores = choice_scores(by_token, labels, batch.choices, length_norm=0.5)
    expected = objective(model, plain, runs=1)  # the targets alone, smoothed; choices are not
    expected = expected + mc * multiple_choice_losses(scores, batch.gold, runs=1)
    expected = expected + unlikelihood * unlikelihood_losses(by_token, labels, batch.choices, batch.gold, runs=1)
    torch.testing.assert_close(objective(model, batch, runs=1), expected)


class Wrapped(DataParallel[AdaptedModel]):
    """A model as several processes have it, run in this one."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


def test_layers_are_read_while_the_logits_are_made(tiny_t5: T5ForConditionalGeneration) -> None:
    model, batch = model_of(tiny_t5), batch_of(with_choices=True)
    objective = Objective("token_mean", 0.0)
    for each in (model, Wrapped(model)):
        logits, means = objective.logits_and_means(each, batch)
        assert torch.equal(logits, objective.logits(model, batch))
        assert model.adapter is not None
        assert {layer: mean.shape for layer, mean in means.items()} == {
            layer: (2, d_in) for layer, (d_in, _) in model.adapter.shapes.items()
        }


@dataclass(frozen=True)
class Settings:
    """What is no section of params.yaml, but has its attributes."""

    loss: str = "example_sum"
    label_smoothing: float = 0.1
    mc_weight: float = 1.0
    unlikelihood_weight: float = 0.5
    length_norm: float = 0.25


def test_whatever_has_the_settings_makes_an_objective() -> None:
    expected = Objective("example_sum", 0.1, mc_weight=1.0, unlikelihood_weight=0.5, length_norm=0.25)
    assert objective_of(Settings()) == expected
    params = PretrainParams(
        steps=1, batch_size=1, loss="example_sum", label_smoothing=0.1, mc_weight=1.0, unlikelihood_weight=0.5, length_norm=0.25
    )
    assert objective_of(params) == expected
