"""Every stage trains in this loop: micro-batches, one optimizer step, linear schedule, checkpoints for resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mhrctl.adapters.adapter import Losses
from mhrctl.data.batches import Batch
from mhrctl.training.divergence import UNNAMED, Rates, Training, Watch
from mhrctl.training.optimizers import rate_settings


@dataclass(frozen=True)
class Step:
    """A step is what an optimizer step leaves behind.

    Attributes:
        number: steps taken so far.
        losses: [runs], of the step's last micro-batch, still on the device.
        require_finite: raises DivergedError if anything so far was not finite. The host waits for the device in it, so it
            is called where the host waits anyway; of several processes, by all. It was called for the last step.
    """

    number: int
    losses: Tensor
    require_finite: Callable[[], None]


@dataclass(frozen=True)
class Schedule:
    """A schedule is the steps of a training.

    Attributes:
        steps: in all, those before `first` included.
        warmup: part of the steps in which the rates rise; then they fall linearly to 0.
        seed: of dropout and of sampled routing.
        accumulation: micro-batches a step and process.
        first: steps taken before, by a training that this one goes on with.
    """

    steps: int
    warmup: float
    seed: int
    accumulation: int = 1
    first: int = 0


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    batches: Callable[[int], Batch],
    objective: Losses,
    clip: Callable[[], Tensor],
    accelerator: Accelerator,
    schedule: Schedule,
    training: Training = UNNAMED,
    before_step: Callable[[int], None] = lambda _step: None,
) -> Iterator[Step]:
    """Train, yielding after every optimizer step.

    Everything random in a step is seeded by the step's number, so a training that begins at `first` with the parameters
    and optimizer state of that step goes on exactly as one that was never interrupted.

    Args:
        model: prepared by the accelerator.
        optimizer: over the model's trainable parameters.
        batches: gives the micro-batch of a number; they are counted through all steps and processes.
        objective: gives the losses of a batch, one a run; they are summed, since runs share no parameter.
        clip: clips gradients before a step, once they are those of all processes, and returns the norms that they had, [runs],
            or one of all.
        accelerator: places batches; several processes share the micro-batches of a step.
        schedule: the steps.
        training: what it is called when it diverges.
        before_step: is called before each step, with the steps taken so far.

    Raises:
        DivergedError: at a loss or gradient that is not finite; on a CPU in that step, before it changes anything.
    """
    scheduler, accumulation = _scheduler(optimizer, schedule), schedule.accumulation
    watch = Watch(training, accelerator, _rates(optimizer, scheduler), first=schedule.first)
    shards, shard = accelerator.num_processes, accelerator.process_index
    model.train()
    for step in range(schedule.first, schedule.steps):
        # No two (seed, step, process) have the same number, unless a training has over a million steps.
        torch.manual_seed((schedule.seed * 1_000_003 + step) * shards + shard)
        before_step(step)
        noted: list[Tensor] = []
        for micro in range(accumulation):
            batch = batches((step * accumulation + micro) * shards + shard).to(accelerator.device)
            # Processes exchange gradients in a step's last backward alone, which has the sum of all micro-batches.
            with accelerator.no_sync(model) if micro < accumulation - 1 else nullcontext():
                losses = objective(model, batch, runs=len(batch.task_ids))
                accelerator.backward(losses.sum() / accumulation)
            noted.append(losses.detach())
        watch.note(sum(noted[1:], noted[0]), clip())
        if watch.is_free:
            watch.require_finite()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        taken = Step(step + 1, losses.detach(), partial(_require_finite, watch, optimizer, step + 1))
        if taken.number == schedule.steps:
            taken.require_finite()
        yield taken


def _require_finite(watch: Watch, optimizer: Optimizer, step: int) -> None:
    """Check what steps have come to, and what they have left behind."""
    watch.require_finite()
    watch.require_finite_state(optimizer, step)


def _rates(optimizer: Optimizer, scheduler: LambdaLR) -> Rates:
    """The rates of any step by their settings, as the schedule has them."""

    def of_step(step: int) -> dict[str, float]:
        groups = zip(rate_settings(optimizer), scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        return {setting: float(peak) * part(step - 1) for setting, peak, part in groups}

    return of_step


def _scheduler(optimizer: Optimizer, schedule: Schedule) -> LambdaLR:
    # torch takes the peak rate from the optimizer only where a scheduler begins at 0, and wants to find it where one goes on.
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    part = partial(part_of_rate, warmup=round(schedule.warmup * schedule.steps), steps=schedule.steps)
    return LambdaLR(optimizer, part, last_epoch=schedule.first - 1)


def part_of_rate(step: int, *, warmup: int, steps: int) -> float:
    """Return the part of its peak that a learning rate has after so many steps, as `get_linear_schedule_with_warmup` does.

    That function of transformers comes with its Trainer, whose import takes longer than a short stage.
    """
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))
