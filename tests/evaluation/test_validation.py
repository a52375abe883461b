"""The losses of training tasks: each on its first examples, whatever is validated beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.names import TRAINING_EXAMPLES
from mhrctl.data.examples import Examples, Sample
from mhrctl.errors import DataError, DivergedError
from mhrctl.evaluation import validation
from mhrctl.evaluation.prediction import sample_losses
from mhrctl.evaluation.validation import Validation, first_examples, mean_loss
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective
from tests.adapters.test_inventory import randomised

CPU = torch.device("cpu")
NAMES = ["copy", "first", "last"]
DATA_SETS = {"both": ["copy", "first"], "one": ["last"]}


@pytest.fixture
def examples(walked: Path) -> Examples:
    return Examples.read(walked / "data/prepare" / TRAINING_EXAMPLES)


@pytest.fixture
def objective() -> Objective:
    return Objective("token_mean", 0.0)


def validation_of(
    backbone: T5ForConditionalGeneration, samples: dict[int, list[Sample]], objective: Objective, accelerator: Accelerator
) -> Validation:
    return Validation(backbone, NAMES, samples, DATA_SETS, objective, Execution(accelerator))


def test_the_first_examples_of_each_task_count(examples: Examples) -> None:
    assert examples.tasks == NAMES
    one = first_examples(examples, 1)
    assert {task: len(samples) for task, samples in one.items()} == {0: 1, 1: 1, 2: 1}
    for task, samples in one.items():
        whole = examples.of(tasks=[NAMES[task]], split="validation").scored()
        assert [sample.input_ids.tolist() for sample in samples] == [sample.input_ids.tolist() for sample in whole[:1]]
    assert {task: len(samples) for task, samples in first_examples(examples, 99).items()} == {0: 2, 1: 2, 2: 2}
    assert first_examples(examples, 0) == {}
    assert list(first_examples(examples.of(tasks=["last"]), 1)) == [2]


def test_a_task_has_the_loss_that_it_has_alone(
    tiny_t5: T5ForConditionalGeneration,
    examples: Examples,
    objective: Objective,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "VALIDATED_TASKS", 2)  # the third has a batch of its own
    samples = first_examples(examples, 2)
    adapter = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=2), tasks=3))
    losses = validation_of(tiny_t5, samples, objective, accelerator).losses(adapter)
    assert list(losses) == NAMES
    for task, of_task in samples.items():
        (alone,) = sample_losses(AdaptedModel(tiny_t5, adapter), [of_task], [[task]], objective=objective, device=CPU)
        assert losses[NAMES[task]] == pytest.approx(alone, abs=1e-5)
    assert len(set(losses.values())) == 3


def test_the_tasks_of_a_data_set_are_measured_on_its_adapter(
    tiny_t5: T5ForConditionalGeneration, examples: Examples, objective: Objective, accelerator: Accelerator
) -> None:
    samples = first_examples(examples, 2)
    base = Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=1, skills=1), tasks=0)
    runs = randomised(base).for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        for parameter in runs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    measured = validation_of(tiny_t5, samples, objective, accelerator)
    losses = measured.losses(runs, ["one", "both"])
    for task, run in ((0, 1), (1, 1), (2, 0)):
        model = AdaptedModel(tiny_t5, runs.select([run]))
        (alone,) = sample_losses(model, [samples[task]], [[0]], objective=objective, device=CPU)
        assert losses[NAMES[task]] == pytest.approx(alone, abs=1e-5)
    assert list(measured.losses(runs.select([0]), ["one"])) == ["last"]  # other tasks have no run there
    both = round((losses["copy"] + losses["first"]) / 2, 5)
    assert measured.means(losses, ["one", "both"]) == [losses["last"], both]
    assert measured.means(losses) == [mean_loss(losses.values())] == [round(sum(losses.values()) / 3, 5)]


def test_every_adapter_needs_samples(
    tiny_t5: T5ForConditionalGeneration, examples: Examples, objective: Objective, accelerator: Accelerator
) -> None:
    def require(*tasks: int, alone: bool = True) -> None:
        samples = {task: first_examples(examples, 1)[task] for task in tasks}
        measured = validation_of(tiny_t5, samples, objective, accelerator)
        (measured if alone else replace(measured, data_sets={})).require_samples()

    require(0, 2)  # one task of a data set suffices
    require(0, alone=False)
    with pytest.raises(DataError, match=r"^validate_examples: there are none of one; prepare more of its examples, or leave"):
        require(0)
    with pytest.raises(DataError, match="there are none of any training task; "):
        require(alone=False)


def test_losses_that_are_no_numbers_are_named(
    tiny_t5: T5ForConditionalGeneration, examples: Examples, objective: Objective, accelerator: Accelerator
) -> None:
    base = Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=1, skills=1), tasks=0)
    runs = randomised(base).for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        runs.lora_B[0][1].fill_(torch.nan)
    measured = validation_of(tiny_t5, first_examples(examples, 2), objective, accelerator)
    with pytest.raises(DivergedError, match=r"^the validation loss of copy, first is not finite$"):
        measured.losses(runs, ["one", "both"])
