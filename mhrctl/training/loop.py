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

from mhrctl.training.data import IGNORED, Batch
from mhrctl.training.losses import run_losses


@dataclass(frozen=True)
class Step:
    """What an optimizer step leaves behind.

    Attributes:
        number: steps taken so far.
        losses: [runs], of the step's last micro-batch, still on the device.
    """

    number: int
    losses: Tensor


@dataclass(frozen=True)
class Objective:
    """How a batch becomes losses; the arguments are those of `run_losses`."""

    kind: str
    label_smoothing: float
    start_token: int
    pad: int = 0

    def __call__(self, model: nn.Module, batch: Batch, *, runs: int) -> Tensor:
        """Losses of a batch, [runs]."""
        logits = model(
            batch.task_ids,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=shift_right(batch.labels, start=self.start_token, pad=self.pad),
        )
        return run_losses(logits, batch.labels, runs=runs, kind=self.kind, label_smoothing=self.label_smoothing)


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    batches: Callable[[int], Batch],
    objective: Objective,
    clip: Callable[[], None],
    accelerator: Accelerator,
    steps: int,
    warmup: float,
    seed: int,
    runs: int = 1,
    accumulation: int = 1,
    first: int = 0,
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
    """
    scheduler = _schedule(optimizer, steps=steps, warmup=warmup, first=first)
    shards, shard = accelerator.num_processes, accelerator.process_index
    model.train()
    for step in range(first, steps):
        torch.manual_seed((seed * 1_000_003 + step) * shards + shard)
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


def shift_right(labels: Tensor, *, start: int, pad: int) -> Tensor:
    """Decoder inputs of labels: the start token, then all labels but the last."""
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    return shifted.masked_fill(shifted == IGNORED, pad)


def _schedule(optimizer: Optimizer, *, steps: int, warmup: float, first: int) -> LRScheduler:
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler: LRScheduler = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps, last_epoch=first - 1)
    return scheduler
