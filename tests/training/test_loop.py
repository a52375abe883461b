"""The loop: equal to a plain one, the same every time, and resumable."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5ForConditionalGeneration, get_linear_schedule_with_warmup

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch
from mhrctl.errors import DivergedError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training import divergence
from mhrctl.training.checkpoint import load_checkpoint, save_checkpoint
from mhrctl.training.loop import Schedule, Step, fit, part_of_rate
from mhrctl.training.objective import Objective
from mhrctl.training.optimizers import clip_runs, optimizer_of
from tests.models.made import ragged

STEPS = 6


def batch(micro: int) -> Batch:
    generator = torch.Generator().manual_seed(micro)
    ids = torch.randint(3, 40, (4, 6), generator=generator)
    labels = torch.randint(3, 40, (4, 3), generator=generator)
    ones, zeros = torch.ones(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    return Batch(torch.tensor([[0, 1, 2, 1]]), ragged(ids), ragged(labels), ones, zeros)


def new_model(backbone: T5ForConditionalGeneration) -> AdaptedModel:
    torch.manual_seed(1)
    shapes = inject(backbone, "full")
    if not shapes:  # injected before
        raise AssertionError
    return AdaptedModel(backbone, Inventory(shapes, InventoryConfig(heads=4, skills=2, temperature=1.0), tasks=3))


def train(
    model: AdaptedModel,
    accelerator: Accelerator,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    first: int = 0,
    until: int = STEPS,
) -> list[float]:
    """Train from step `first`, and be killed after step `until`; returns the losses."""
    inventory = model.adapter
    assert isinstance(inventory, Inventory)
    steps = fit(
        model,
        optimizer or adamw(inventory),
        batches=batch,
        objective=Objective("token_mean", 0.0),
        clip=lambda: clip_runs(list(inventory.parameters()), 1.0),
        accelerator=accelerator,
        schedule=Schedule(STEPS, warmup=0.5, seed=3, first=first),
    )
    return [step.losses.item() for step in itertools.islice(steps, until - first)]


def adamw(inventory: Inventory) -> torch.optim.Optimizer:
    return optimizer_of(inventory, PretrainParams(steps=STEPS, batch_size=4, lr=0.01, routing_lr=0.1, weight_decay=0.01))


def test_the_loss_is_transformers_own(tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator) -> None:
    inputs, labels = batch(0).inputs, batch(0).labels
    with torch.no_grad():
        theirs = tiny_t5(input_ids=inputs.padded(0), attention_mask=inputs.mask(), labels=labels).loss
    assert abs(train(new_model(tiny_t5), accelerator)[0] - theirs.item()) < 1e-6


def test_one_seed_gives_the_same_bits(tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator) -> None:
    first = AdaptedModel(tiny_t5, None)
    shapes = inject(first.backbone, "full")

    def once() -> tuple[list[float], dict[str, Tensor]]:
        torch.manual_seed(1)
        model = AdaptedModel(tiny_t5, Inventory(shapes, InventoryConfig(heads=4, skills=2, temperature=1.0), tasks=3))
        losses = train(model, accelerator)
        assert model.adapter is not None
        return losses, model.adapter.state_dict()

    (losses, weights), (again, same_weights) = once(), once()
    assert losses == again
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert losses[-1] != losses[0]


def test_accumulated_micro_batches_equal_one_large_batch(tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator) -> None:
    shapes = inject(tiny_t5, "full")

    def joined(micro: int) -> Batch:
        first, second = batch(2 * micro), batch(2 * micro + 1)
        ids = torch.cat([first.inputs.padded(0), second.inputs.padded(0)])
        labels = torch.cat([first.labels, second.labels])
        ones, zeros = torch.ones(len(ids), dtype=torch.long), torch.zeros(len(ids), dtype=torch.long)
        return Batch(torch.cat([first.task_ids, second.task_ids], 1), ragged(ids), ragged(labels), ones, zeros)

    results = []
    for accumulation, batches in ((2, batch), (1, joined)):
        torch.manual_seed(1)
        inventory = Inventory(shapes, InventoryConfig(heads=4, skills=2), tasks=3)
        optimizer = torch.optim.SGD(inventory.parameters(), lr=0.1)
        steps = fit(
            AdaptedModel(tiny_t5, inventory),
            optimizer,
            batches=batches,
            objective=Objective("example_sum", 0.1),
            clip=lambda adapter=inventory: clip_runs(list(adapter.parameters()), 1.0),  # type: ignore[misc]
            accelerator=accelerator,
            schedule=Schedule(3, warmup=0.0, seed=3, accumulation=accumulation),
        )
        assert [step.number for step in steps] == [1, 2, 3]
        results.append(inventory.state_dict())
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name])


def test_a_killed_run_resumes_to_the_same_result(
    tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator, tmp_path: Path
) -> None:
    shapes = inject(tiny_t5, "full")
    path = tmp_path / "checkpoint.safetensors"

    def fresh() -> tuple[AdaptedModel, dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        torch.manual_seed(1)
        inventory = Inventory(shapes, InventoryConfig(heads=4, skills=2, temperature=1.0), tasks=3)
        return AdaptedModel(tiny_t5, inventory), dict(inventory.named_parameters()), adamw(inventory)

    model, whole, optimizer = fresh()
    train(model, accelerator, optimizer=optimizer)

    model, parameters, optimizer = fresh()
    train(model, accelerator, optimizer=optimizer, until=3)
    save_checkpoint(path, step=3, key="k", parameters=parameters, optimizer=optimizer, log=[[3, 0.5]])

    model, resumed, optimizer = fresh()
    assert load_checkpoint(path, key="other", parameters=resumed, optimizer=optimizer) == (0, [])
    first, log = load_checkpoint(path, key="k", parameters=resumed, optimizer=optimizer)
    assert (first, log) == (3, [[3, 0.5]])
    train(model, accelerator, optimizer=optimizer, first=first)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


class Spoiled:
    """An objective whose loss is no number from some step on: itself, or only its gradient."""

    def __init__(self, step: int, spoil: Callable[[Tensor], Tensor]) -> None:
        self.step, self.spoil, self.calls = step, spoil, 0

    def __call__(self, model: Any, batch: Batch, *, runs: int) -> Tensor:
        self.calls += 1
        losses = Objective("token_mean", 0.0)(model, batch, runs=runs)
        return self.spoil(losses) if self.calls >= self.step else losses


def nan_loss(losses: Tensor) -> Tensor:
    return losses * math.nan


def nan_gradient(losses: Tensor) -> Tensor:
    """The loss as it is, whose gradient is infinite: that of a root at 0."""
    return losses + (losses - losses.detach()).sqrt()


def spoiled(backbone: T5ForConditionalGeneration, accelerator: Accelerator, objective: Spoiled) -> tuple[Inventory, Any]:
    model = new_model(backbone)
    inventory = model.adapter
    assert isinstance(inventory, Inventory)
    steps = fit(
        model,
        adamw(inventory),
        batches=batch,
        objective=objective,
        clip=lambda: clip_runs(list(inventory.parameters()), 1.0),
        accelerator=accelerator,
        schedule=Schedule(STEPS, warmup=0.1, seed=3),
    )
    return inventory, steps


@pytest.mark.parametrize(
    ("spoil", "what"), [(nan_loss, "the loss is nan"), (nan_gradient, r"a gradient is not finite \(the loss is \S+\)")]
)
def test_a_cpu_stops_at_the_first_bad_step_and_keeps_the_step_before(
    tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator, spoil: Callable[[Tensor], Tensor], what: str
) -> None:
    inventory, steps = spoiled(tiny_t5, accelerator, Spoiled(4, spoil))
    taken: list[Step] = []
    before: dict[str, Tensor] = {}
    with pytest.raises(DivergedError, match=f"^training: {what} at step 4 .*lower training.lr or training.routing_lr; "):
        for step in steps:
            taken.append(step)
            before = {name: tensor.clone() for name, tensor in inventory.state_dict().items()}
    assert [step.number for step in taken] == [1, 2, 3]
    assert all(torch.equal(tensor, before[name]) for name, tensor in inventory.state_dict().items())


@pytest.mark.parametrize("spoil", [nan_loss, nan_gradient])
def test_a_device_is_asked_late_and_names_the_first_bad_step(
    tiny_t5: T5ForConditionalGeneration,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Tensor], Tensor],
) -> None:
    asynchronous(monkeypatch)
    _, steps = spoiled(tiny_t5, accelerator, Spoiled(2, spoil))
    for step in itertools.islice(steps, 4):
        if step.number == 1:
            step.require_finite()
    with pytest.raises(DivergedError, match="at step 2 "):
        step.require_finite()
    with pytest.raises(DivergedError, match="at step 2 "):  # and nobody needs to ask at the end
        list(steps)


def test_a_last_step_that_leaves_no_numbers_is_seen(tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator) -> None:
    model = new_model(tiny_t5)
    inventory = model.adapter
    assert isinstance(inventory, Inventory)
    steps = fit(
        model,
        torch.optim.SGD(inventory.parameters(), lr=1e38),
        batches=batch,
        objective=Objective("token_mean", 0.0),
        clip=lambda: clip_runs(list(inventory.parameters()), 1e9),
        accelerator=accelerator,
        schedule=Schedule(1, warmup=0.0, seed=3),
    )
    with torch.no_grad():
        for parameter in inventory.parameters():
            parameter.mul_(1e3)
    with pytest.raises(DivergedError, match=r"is not finite"):
        list(steps)


def asynchronous(patch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device that the host waits for."""
    real = divergence.Watch.__init__

    def waits(self: divergence.Watch, *args: Any, **rest: Any) -> None:
        real(self, *args, **rest)
        self.is_free = False

    patch.setattr(divergence.Watch, "__init__", waits)


class HostReads(TorchDispatchMode):
    """Takes note of whatever would make a host wait for its device: numbers that it reads, and copies to the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = func.name(), kwargs or {}
        if any(word in name for word in ("_local_scalar_dense", "is_nonzero", "nonzero", "aten::equal", "aten::item")):
            self.seen.append(name)
        if name in {"aten::_to_copy", "aten::copy_"} and options.get("device") is not None:
            self.seen.append(name)
        return func(*args, **options)


def test_no_step_waits_for_the_device_to_be_checked(
    tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asynchronous(monkeypatch)
    _, steps = spoiled(tiny_t5, accelerator, Spoiled(99, nan_loss))
    with HostReads() as reads:
        for step in itertools.islice(steps, STEPS - 1):
            assert step.number < STEPS
    assert reads.seen == []
    with HostReads() as reads:
        step.require_finite()
    # The steps, what is trained, and what the optimizer keeps, with its counters: and so a read in a step would be seen.
    assert reads.seen == ["aten::_local_scalar_dense"] * 3


@pytest.mark.parametrize("warmup", [0, 1, 6, 20])
def test_the_rate_rises_and_falls_as_in_transformers(warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimizer, warmup, 20).lr_lambdas[0]
    steps = range(25)
    assert [part_of_rate(step, warmup=warmup, steps=20) for step in steps] == [reference(step) for step in steps]


def test_training_needs_nothing_of_transformers_trainer() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, mhrctl.stages.adapt as _; print(*sorted(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "mhrctl.training.loop" in loaded
    assert not {"transformers.trainer_utils", "peft", "bitsandbytes", "datasets", "sentence_transformers"}.intersection(loaded)
