"""Align-LoRA is one LoRA whose low-rank activations are drawn together while it is trained on many tasks (arXiv 2508.05078).

Besides its losses, a batch has the distance between the tasks that meet in it, a mean over adapted layers and pairs of tasks. A
row is represented by the mean of x A over its tokens, with x what the layer reads, without dropout; a task by its rows. What is
trained is an ordinary LoRA, and so is what a new task tunes, without the distance.

The authors' code compares x A place by place in rows of one length, padding included, in batches with equally many rows of each
task. Batches here are drawn from all tasks alike and have no padding to speak of, so a row has one mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Losses, Objective, Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.inventory import Inventory

WIDTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 1e2, 1e3, 1e4, 1e5, 1e6)
"""Squared widths of the Gaussian kernels that the discrepancy sums up, those of the authors' code."""
EPS = 1e-8
"""Added to variances, as in the authors' code."""


class AlignLoRA(Inventory):
    """Align-LoRA is an inventory of one skill with a loss of its own.

    Attributes:
        weight: of the distance, which is added to the loss.
        distance: a name of `DISTANCES`.
    """

    kind = "align_lora"

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, weight: float, distance: str, runs: int = 1) -> None:
        """Make a new LoRA.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the LoRA.
            weight: of the distance.
            distance: a name of `DISTANCES`.
            runs: independent ones, of which one alone is trained.
        """
        super().__init__(shapes, config, runs=runs)
        self.weight, self.distance = weight, distance

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make what is asked for."""
        asked = config.inventory
        return cls(shapes, InventoryConfig(rank=asked.rank, alpha=asked.alpha, dropout=asked.dropout), **config.options)

    def objective(self, objective: Objective) -> Losses:
        """Return the losses of a batch and the distance between its tasks."""
        return _Aligned(objective, self) if self.weight else objective

    def distance_of(self, means: Mapping[str, Tensor], task_ids: Tensor) -> Tensor:
        """Compute the mean distance between tasks.

        Args:
            means: {layer: the mean of what it reads over the tokens of each row, [rows, d_in]}.
            task_ids: [rows].
        """
        low = [
            means[name].to(bank.device) @ bank[0, place, 0, 0].float()
            for names, bank in zip(self.stacks.values(), self.lora_A, strict=True)
            for place, name in enumerate(names)
            if name in means
        ]
        return DISTANCES[self.distance](torch.stack(low), task_ids)

    def like_average(self) -> Inventory:
        """Make an ordinary LoRA of the same rank."""
        return self._plain(runs=1)

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Inventory:
        """Start adaptation from this as an ordinary LoRA."""
        return self.average().for_new_tasks(seeds, train_skills=train_skills)

    def settings(self) -> dict[str, Any]:
        """Return the shapes, the LoRA's rank, alpha and dropout, and the distance."""
        lora = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return {"shapes": self.shapes, **lora, "weight": self.weight, "distance": self.distance}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make one from `settings`."""
        lora = InventoryConfig(rank=settings["rank"], alpha=settings["alpha"], dropout=settings["dropout"])
        return cls(settings["shapes"], lora, weight=settings["weight"], distance=settings["distance"])

    def _like(self, *, runs: int) -> Self:
        """A new one of the same settings."""
        return type(self)(self.shapes, self.config, weight=self.weight, distance=self.distance, runs=runs)


@dataclass(frozen=True)
class _Aligned:
    """The losses of a batch, plus a multiple of the distance between its tasks."""

    objective: Objective
    adapter: AlignLoRA

    def __call__(self, model: Any, batch: Any, *, runs: int) -> Tensor:  # noqa: ANN401 - types of rooms above
        logits, means = self.objective.logits_and_means(model, batch)
        rows = len(batch.inputs.lengths) // batch.task_ids.numel()
        distance = self.adapter.distance_of(means, batch.task_ids.flatten().repeat_interleave(rows))
        return self.objective.of_logits(logits, batch, runs=runs) + self.adapter.weight * distance


def discrepancy(low: Tensor, task_ids: Tensor) -> Tensor:
    """Compute the squared maximum mean discrepancy of Gaussian kernels, a mean over layers and pairs of tasks.

    Args:
        low: [layers, rows, r].
        task_ids: [rows].

    Returns:
        0 where there is one task alone.
    """
    tasks = _Tasks.of(task_ids)
    squared = (low[:, :, None] - low[:, None]).square().sum(-1)
    kernels = sum((torch.exp(squared / (-2 * width)) for width in WIDTHS), torch.zeros_like(squared))
    between = tasks.averaging @ kernels @ tasks.averaging.T  # the mean over the rows of two tasks, at any row of each
    within = between.diagonal(dim1=1, dim2=2)
    return tasks.mean_of_pairs(within[:, :, None] + within[:, None] - 2 * between)


def divergence(low: Tensor, task_ids: Tensor) -> Tensor:
    """Compute the mean of both KL divergences of Gaussians with independent dimensions, a mean over layers and pairs of tasks.

    Args:
        low: [layers, rows, r].
        task_ids: [rows]; a task of one row has no variance, and is in no pair.

    Returns:
        0 where there are not two tasks.
    """
    tasks = _Tasks.of(task_ids, least=2)
    means = tasks.averaging @ low
    unbiased = tasks.counts / (tasks.counts - 1).clamp(min=1)
    variances = tasks.averaging @ (low - means).square() * unbiased[:, None] + EPS
    # With both ways added up the logarithms cancel: (v1 + d^2) / v2 + (v2 + d^2) / v1 - 2, and a half of it twice.
    apart = (means[:, :, None] - means[:, None]).square()
    ratios = (variances[:, :, None] + apart) / variances[:, None]
    one_way = (ratios - 1).sum(-1) / 4
    return tasks.mean_of_pairs(one_way + one_way.mT)


DISTANCES = {"mmd": discrepancy, "kl": divergence}
"""{distance: how it is computed}."""


@dataclass(frozen=True)
class _Tasks:
    """The tasks of a batch, each at all of its rows, so that nobody waits for a device to say how many there are.

    Attributes:
        averaging: [rows, rows]; a row of it takes the mean over the rows of the same task.
        counts: [rows], of rows of the same task.
        pairs: [rows, rows], one where two tasks meet for the first time.
    """

    averaging: Tensor
    counts: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, task_ids: Tensor, *, least: int = 1) -> _Tasks:
        """Sort rows by their tasks, of which those count that have `least` rows."""
        same = (task_ids[:, None] == task_ids).float()
        counts = same.sum(1)
        is_first = (same.tril(-1).sum(1) == 0) & (counts >= least)
        return cls(same / counts[:, None], counts, torch.outer(is_first, is_first).float().triu(1))

    def mean_of_pairs(self, distances: Tensor) -> Tensor:
        """Return the mean over layers and pairs of tasks of [layers, rows, rows]; 0 without a pair."""
        # not a product: a distance that does not count may be no number
        counted = torch.where(self.pairs.bool(), distances, 0.0)
        return counted.sum() / (len(distances) * self.pairs.sum().clamp(min=1))
