"""The watch: which step it names, whose, and that it reads nothing from a device until it is asked."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mhrctl.config.sections import PretrainParams
from mhrctl.errors import DivergedError
from mhrctl.training.divergence import UNNAMED, Training, Watch
from mhrctl.training.optimizers import make_optimizer

NAN, INF = math.nan, math.inf
NAMED = Training("adapt lora-s0", "adapt", ("copy", "first", "last"), lambda: "nothing was written")


def new_watch(accelerator: Any, training: Training = NAMED, *, first: int = 0) -> Watch:
    return Watch(training, accelerator, lambda step: {"lr": step / 100, "routing_lr": 1.0}, first=first)


def losses(*values: float) -> Tensor:
    return torch.tensor(values)


def test_finite_steps_pass(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator)
    watch.require_finite()
    for _ in range(3):
        watch.note(losses(1.0, 2.0, 3.0), losses(0.0, 1e30, 1.0))
        watch.require_finite()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_first_step_that_was_not_finite_is_named_however_late_it_is_asked(accelerator: Accelerator, bad: float) -> None:
    watch = new_watch(accelerator, first=10)
    for step in range(1, 9):
        watch.note(losses(1.0, bad if step >= 5 else 2.0, NAN if step >= 7 else 3.0), losses(1.0, 1.0, 1.0))
    with pytest.raises(DivergedError) as error:
        watch.require_finite()
    assert str(error.value) == (
        f"adapt lora-s0: the loss of first is {bad} at step 15 (learning rate: lr 0.15, routing_lr 1);"
        " lower adapt.lr or adapt.routing_lr; nothing was written"
    )


def test_a_run_that_recovers_is_not_forgotten(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator)
    for loss in (1.0, NAN, 1.0, 1.0):
        watch.note(losses(1.0, 1.0, loss), losses(1.0, 1.0, 1.0))
    with pytest.raises(DivergedError, match=r"the loss of last is nan at step 2 "):
        watch.require_finite()


def test_all_runs_of_the_first_bad_step_are_named(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator)
    watch.note(losses(1.0, 1.0, 1.0), losses(1.0, 1.0, 1.0))
    watch.note(losses(NAN, 1.0, INF), losses(1.0, 1.0, 1.0))
    with pytest.raises(DivergedError, match=r"the loss of copy, last is nan at step 2 "):
        watch.require_finite()


def test_a_gradient_is_seen_where_the_loss_is_finite(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator)
    for norm in (1.0, INF, NAN):
        watch.note(losses(1.0, 2.5, 1.0), losses(1.0, norm, 1.0))
    with pytest.raises(DivergedError, match=r"a gradient of first is not finite \(the loss is 2.5\) at step 2 "):
        watch.require_finite()


def test_one_norm_of_all_and_no_names(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator, UNNAMED)
    watch.note(losses(1.0), torch.tensor(1.0))
    watch.note(losses(2.0), torch.tensor(NAN))
    with pytest.raises(DivergedError, match=r"^training: a gradient is not finite \(the loss is 2\) at step 2 "):
        watch.require_finite()


def test_no_rate_is_blamed_for_the_first_step(accelerator: Accelerator) -> None:
    watch = new_watch(accelerator)
    watch.note(losses(1.0, NAN, 1.0), losses(1.0, 1.0, 1.0))
    with pytest.raises(DivergedError, match=r"at step 1 .* look at the backbone, .* and at adapt.precision") as error:
        watch.require_finite()
    assert "lower" not in str(error.value)


def test_nothing_is_read_from_the_device(accelerator: Accelerator) -> None:
    """Tensors of the meta device have no numbers: whoever reads one fails."""
    watch = new_watch(accelerator)
    for _ in range(3):
        watch.note(torch.ones(3, device="meta"), torch.ones(3, device="meta"))
    with pytest.raises(RuntimeError, match="meta"):
        watch.require_finite()


def test_an_answer_is_free_for_one_process_on_a_cpu_alone() -> None:
    def free(device: str, processes: int) -> bool:
        return new_watch(SimpleNamespace(device=torch.device(device), num_processes=processes)).is_free

    assert free("cpu", 1)
    assert not free("cpu", 2)
    assert not free("cuda", 1)


def test_the_first_bad_step_of_any_process_is_named() -> None:
    """Of two processes only the other has seen the loss that is not finite."""
    others = {"good": torch.tensor([[3, 1, 3]]), "losses": torch.tensor([[1.0, NAN, 1.0]])}

    def gather(mine: Tensor) -> Tensor:
        return torch.cat([mine, others["losses" if mine.is_floating_point() else "good"]])

    watch = new_watch(SimpleNamespace(device=torch.device("cpu"), num_processes=2, gather=gather))
    for _ in range(3):
        watch.note(losses(1.0, 2.0, 3.0), losses(1.0, 1.0, 1.0))
    with pytest.raises(DivergedError, match=r"the loss of first is nan at step 2 "):
        watch.require_finite()
    others |= {"good": torch.tensor([[3, 3, 3]])}
    watch.require_finite()


def test_what_is_trained_and_what_the_optimizer_keeps(accelerator: Accelerator) -> None:
    parameter = nn.Parameter(torch.ones(1, 2, 3, 4))
    optimizer = make_optimizer(PretrainParams(steps=9, batch_size=1), skills=[parameter], routing=[])
    watch = new_watch(accelerator)
    watch.require_finite_state(optimizer, 1)
    parameter.grad = torch.full_like(parameter, 1e30)  # whose square is infinite in fp32
    optimizer.step()
    with pytest.raises(DivergedError, match=r"what the optimizer keeps is not finite after step 1 .*; lower adapt.lr"):
        watch.require_finite_state(optimizer, 1)
    with torch.no_grad():
        parameter[0, 1, 2, 3] = NAN
    with pytest.raises(DivergedError, match=r"what is trained is not finite after step 4 "):
        watch.require_finite_state(optimizer, 4)
