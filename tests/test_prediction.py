"""Generation and losses for many tasks side by side equal those of one task alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5ForConditionalGeneration

from mhrctl import prediction
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.layer import inject
from mhrctl.adapters.model import AdaptedModel
from mhrctl.params import TARGETS
from mhrctl.prediction import own_rows, predict, sample_losses
from mhrctl.training.data import Sample
from mhrctl.training.loop import Objective

CPU = torch.device("cpu")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    vocabulary = {"<pad>": 0, "</s>": 1} | {f"w{number}": number for number in range(2, 64)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


@pytest.fixture
def samples() -> list[list[Sample]]:
    """Runs of three and five samples of different lengths."""
    rng = np.random.default_rng(0)

    def sample(length: int) -> Sample:
        return Sample(0, rng.integers(2, 64, length), rng.integers(2, 64, 3))

    return [[sample(length) for length in (4, 7, 2)], [sample(length) for length in (3, 3, 8, 5, 6)]]


@pytest.fixture
def inventory(tiny_t5: T5ForConditionalGeneration) -> Inventory:
    base = Inventory(inject(tiny_t5, TARGETS), heads=4, skills=2, tasks=3)
    with torch.no_grad():
        for bank in base.lora_B:
            bank.normal_(std=0.3)
    runs = base.for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        for parameter in runs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return runs


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_side_by_side_equal_answers_alone(
    tiny_t5: T5ForConditionalGeneration,
    inventory: Inventory,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[list[Sample]],
    beams: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "BATCH_ROWS", 4 * beams)  # two rows a run and batch: the runs end in different batches
    together = predict(AdaptedModel(tiny_t5, inventory), tokenizer, samples, beams=beams, max_new_tokens=4, device=CPU)
    for run, own in enumerate(samples):
        model = AdaptedModel(tiny_t5, inventory.select([run]))
        for row, sample in enumerate(own):
            (alone,) = predict(model, tokenizer, [[sample]], beams=beams, max_new_tokens=4, device=CPU)
            assert together[run][row] == alone[0]
    assert len({answer for run in together for answer in run}) > 1


def test_losses_side_by_side_equal_losses_alone(
    tiny_t5: T5ForConditionalGeneration, inventory: Inventory, samples: list[list[Sample]]
) -> None:
    objective = Objective("token_mean", 0.0, start_token=0)
    together = sample_losses(AdaptedModel(tiny_t5, inventory), samples, own_rows(2), objective=objective, device=CPU)
    for run, own in enumerate(samples):
        model = AdaptedModel(tiny_t5, inventory.select([run]))
        (alone,) = sample_losses(model, [own], own_rows(1), objective=objective, device=CPU)
        assert together[run] == pytest.approx(alone, rel=1e-5)
