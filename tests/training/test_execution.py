"""How a stage runs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.models.attach import inject
from mhrctl.models.sharding import is_sharded
from mhrctl.models.speed import Sharding, Speed
from mhrctl.progress import silent, unrecorded
from mhrctl.training.execution import Execution


def test_nothing_asked_for_is_quick_and_silent(accelerator: Accelerator) -> None:
    plain = Execution(accelerator)
    assert (plain.speed, plain.track, plain.recorder) == (Speed(), silent, unrecorded)
    with plain.track("work", 2) as bar:
        bar.advance()
    plain.recorder.log(1, {"loss": 0.5})
    with pytest.raises(FrozenInstanceError):
        plain.speed = Speed(together=1)  # type: ignore[misc]


def test_tasks_whose_adapter_replaces_weights_go_one_at_a_time(
    accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    execution = Execution(accelerator, Speed(together=4))
    assert execution.together(None) == 4
    assert execution.together(Inventory(inject(tiny_t5, "full"), InventoryConfig())) == 4
    assert execution.together(Weights.of(tiny_t5)) == 1


def test_a_model_is_adapted_as_the_execution_says(accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration) -> None:
    adapter = Inventory(inject(tiny_t5, "full"), InventoryConfig())
    execution = Execution(accelerator, Speed(together=4))
    model = execution.adapted(tiny_t5, adapter)
    assert (model.backbone, model.adapter, model.speed) == (tiny_t5, adapter, execution.speed)
    assert {parameter.device for parameter in model.parameters()} == {accelerator.device}
    assert execution.adapted(tiny_t5, None).adapter is None


def test_threads_are_torchs_on_a_cpu_and_none_on_a_gpu(accelerator: Accelerator) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert Execution(accelerator).threads == 2
    torch.set_num_threads(before)
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert Execution(on_gpu).threads is None


def test_weights_are_whole_and_accelerates_unless_they_are_to_be_divided(
    accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    execution = Execution(accelerator)
    adapter = Inventory(inject(tiny_t5, "full"), InventoryConfig())
    with execution.loading() as place:
        place(tiny_t5)
    assert not is_sharded(tiny_t5)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    model = execution.adapted(tiny_t5, adapter)
    wrapped, prepared = execution.prepared(model, optimizer)
    assert wrapped is model
    assert isinstance(prepared, AcceleratedOptimizer)
    execution.exchange(list(adapter.parameters()))  # which have no gradients, and nobody asks


def test_gradients_are_exchanged_where_weights_are_divided(
    accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    adapter = Inventory(inject(tiny_t5, "full"), InventoryConfig())
    with pytest.raises(ValueError, match="no gradient, which processes would exchange"):
        Execution(accelerator, sharding=Sharding()).exchange(list(adapter.parameters()))
