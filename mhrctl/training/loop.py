"""The training loop of every stage: micro-batches, one optimizer step, linear schedule, checkpoints for resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_linear_schedule_with_warmup

from mhrctl.data.batches import Batch

LossesOf = Callable[..., Tensor]
"""The losses of a batch, [runs], from a model, a batch and `runs` (see `mhrctl.training.objective.Objective`)."""


@dataclass(frozen=True)
class Step:
    """What an optimizer step leaves behind.

    Attributes:
        number: steps taken so far.
        losses: [runs], of the step's last micro-batch, still on the device.
    """

    number: int
    losses: Tensor


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    batches: Callable[[int], Batch],
    objective: LossesOf,
    clip: Callable[[], None],
    accelerator: Accelerator,
    steps: int,
    warmup: float,
    seed: int,
    runs: int = 1,
    accumulation: int = 1,
    first: int = 0,
    before_step: Callable[[int], None] = lambda _step: None,
) -> Iterator[Step]:
    """Train, yielding after every optimizer step.

    Everything random in a step is seeded by the step's number, so a run that starts at `first` with the parameters
    and optimizer state of that step goes on exactly as one that was never interrupted.

    Args:
        model: prepared by the accelerator.
        optimizer: over the model's trainable parameters.
        batches: gives the micro-batch of a number; they are counted through all steps and processes.
        objective: gives the losses of a batch.
        clip: clips gradients before a step.
        accelerator: places batches; several processes share the micro-batches of a step.
        steps: in all, those before `first` included.
        warmup: part of the steps in which the rates rise.
        seed: of dropout and of sampled routing.
        runs: independent runs in a batch; their losses are summed, since they share no parameter.
        accumulation: micro-batches a step and process.
        first: steps taken before.
        before_step: is told the steps taken so far, before each.
    """
    scheduler = _schedule(optimizer, steps=steps, warmup=warmup, first=first)
    shards, shard = accelerator.num_processes, accelerator.process_index
    model.train()
    for step in range(first, steps):
        torch.manual_seed((seed * 1_000_003 + step) * shards + shard)
        before_step(step)
        for micro in range(accumulation):
            batch = batches((step * accumulation + micro) * shards + shard).to(accelerator.device)
            with accelerator.no_sync(model) if micro < accumulation - 1 else nullcontext():
                losses = objective(model, batch, runs=runs)
                accelerator.backward(losses.sum() / accumulation)
        clip()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield Step(step + 1, losses.detach())


def _schedule(optimizer: Optimizer, *, steps: int, warmup: float, first: int) -> LRScheduler:
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler: LRScheduler = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps, last_epoch=first - 1)
    return scheduler
