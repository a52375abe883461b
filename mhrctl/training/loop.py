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

from mhrctl.data.batches import IGNORED, Batch
from mhrctl.training.losses import choice_scores, multiple_choice_losses, run_losses, token_losses, unlikelihood_losses


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
    """How a batch becomes losses.

    Attributes:
        kind: see `run_losses`.
        label_smoothing: of the cross-entropy of the targets.
        start_token: the first of the decoder's inputs.
        pad: the padding token.
        mc_weight: of T-Few's multiple-choice loss over answer choices.
        unlikelihood_weight: of T-Few's unlikelihood loss of wrong choices.
        length_norm: of the choices' scores.
    """

    kind: str
    label_smoothing: float
    start_token: int
    pad: int = 0
    mc_weight: float = 0.0
    unlikelihood_weight: float = 0.0
    length_norm: float = 1.0

    @property
    def reads_choices(self) -> bool:
        """Whether batches must hold the answer choices."""
        return self.mc_weight > 0 or self.unlikelihood_weight > 0

    def __call__(self, model: nn.Module, batch: Batch, *, runs: int) -> Tensor:
        """Losses of a batch, [runs]."""
        rows = len(batch.input_ids)
        if len(batch.labels) == rows:
            losses = self.token_losses(model, batch, label_smoothing=self.label_smoothing)
            return run_losses(losses, batch.labels, runs=runs, kind=self.kind)
        labels = batch.labels.view(rows, -1, batch.labels.shape[-1])
        gold = torch.arange(rows, device=labels.device) * labels.shape[1] + batch.gold
        if self.label_smoothing:  # of the targets alone
            logits = self.logits(model, batch)
            of_gold = token_losses(logits[gold], batch.labels[gold], label_smoothing=self.label_smoothing)
            by_token = token_losses(logits, batch.labels)
        else:
            by_token = self.token_losses(model, batch)
            of_gold = by_token[gold]
        losses = run_losses(of_gold, batch.labels[gold], runs=runs, kind=self.kind)
        by_token = by_token.view_as(labels)
        if self.mc_weight:
            scores = choice_scores(by_token, labels, batch.choices, length_norm=self.length_norm)
            losses = losses + self.mc_weight * multiple_choice_losses(scores, batch.gold, runs=runs)
        if self.unlikelihood_weight:
            unlikelihood = unlikelihood_losses(by_token, labels, batch.choices, batch.gold, runs=runs)
            losses = losses + self.unlikelihood_weight * unlikelihood
        return losses

    def token_losses(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of each token of a batch's labels, [label rows, target length]; 0 where the label is -100."""
        losses: Tensor = model(
            batch.task_ids,
            labels=batch.labels,
            label_smoothing=label_smoothing,
            lengths=batch.lengths,
            **self._inputs(batch),
        )
        return losses

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Teacher-forced logits of a batch's labels, [label rows, target length, vocabulary]."""
        logits: Tensor = model(batch.task_ids, **self._inputs(batch))
        return logits

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "decoder_input_ids": shift_right(batch.labels, start=self.start_token, pad=self.pad),
        }


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
