"""Gradient alignment: how far training tasks pull the adapters the same way (the paper's Figure 3, left).

Neither the paper nor its code says how it was measured; the definition here is ours (docs/recipe.md, section 4). For
each of some training tasks, the gradient of the token-mean loss of one batch, with dropout and the noise of sampled routing
off; then the mean over the pairs of tasks of the cosine between their gradients, taken twice:

    composed   on each task's composed adapter: A^t, and B^t without the scaling, both [rank, d]
    shared     on what all tasks train: A and B of all skills and heads; never Z, of which each task has rows of its own

Of head h and skill k, A^t has the share a[t,h,k] of A[h,k], so dL/dA[h,k] = a[t,h,k] dL/dA^t[h], and likewise for B. The
product of two shared gradients is therefore, head by head, that of the composed ones times sum_k a[t,h,k] a[u,h,k]: exactly
what routing does to the agreement, and the reason why gradients on the skills need neither be computed nor kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.build import adapter_class
from mhrctl.adapters.finite import require_finite
from mhrctl.adapters.granularity import by_coder
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS, Method
from mhrctl.data.batches import Batch, Order, collate
from mhrctl.data.examples import Examples
from mhrctl.errors import DataError, DivergedError, ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.generation import is_causal
from mhrctl.training.objective import Objective

DIGITS = 4
"""Of a written cosine: what is beyond differs between machines."""
ROUNDING = 1e-6
"""A gradient of less than this part of the largest one's norm is no gradient but rounding."""


@dataclass(frozen=True)
class Agreement:
    """Mean cosines between the gradients of two tasks, over all pairs of tasks.

    Attributes:
        overall: on all adapted layers, as one vector.
        encoder: on those of the encoder; None if none is adapted, as in a model that has no encoder.
        decoder: on those of an encoder-decoder's decoder; None if none is adapted.
        layers: {layer: on this one}, in the model's order.
    """

    overall: float
    encoder: float | None
    decoder: float | None
    layers: Mapping[str, float]


@dataclass(frozen=True)
class Alignment:
    """The agreement of some training tasks.

    Attributes:
        tasks: their names.
        shared: on A and B of all skills and heads.
        composed: on the tasks' composed adapters.
    """

    tasks: tuple[str, ...]
    shared: Agreement
    composed: Agreement

    @property
    def logged(self) -> list[float]:
        """What a training log says of it: shared and composed, on all layers."""
        return [round(self.shared.overall, DIGITS), round(self.composed.overall, DIGITS)]


def why_unshared(row: Method) -> str | None:
    """Say why the training tasks of a method share no adapter whose gradients can be compared; None if they do."""
    if adapter_class(row).replaces_weights:
        return f"{row.name} tunes all weights and has no adapter"
    if row.routes_inputs:
        return f"{row.name} composes an adapter for each example, so that no task has one"
    if not adapter_class(row).has_alignment:
        return f"what the training tasks of {row.name} share is not what they are trained by"
    if row.is_private:
        return f"{row.name} gives each training task an adapter of its own, so their gradients meet nowhere"
    return None


def require_shared(cell: Cell, setting: str) -> None:
    """Check that the training tasks of a cell share an adapter.

    Args:
        cell: a pre-training cell.
        setting: what asked for alignment, for the error.

    Raises:
        ParamsError: if they do not.
    """
    why = why_unshared(cell.row)
    if why is None:
        return
    rows = [row for row in METHODS.values() if row.pretrain == row.name and not row.is_private]
    measured = [row.name for row in rows if adapter_class(row).has_alignment]
    raise ParamsError(f"{setting}: {why}; gradient alignment is of {', '.join(measured[:-1])} and {measured[-1]}")


def task_batches(examples: Examples, *, tasks: int, size: int, seed: int) -> dict[str, Batch]:
    """Draw one batch of training examples from each of some tasks.

    Args:
        examples: of all training tasks.
        tasks: how many to draw, at most all.
        size: examples of each, at most all; fewer are the first of more.
        seed: of both draws.

    Returns:
        {task: one group of rows with the task's routing}, in the order of the tasks.

    Raises:
        ParamsError: if fewer than two tasks are to be drawn.
        DataError: if there are not two.
    """
    if tasks < 2:
        raise ParamsError(f"gradient alignment of {tasks} task: it is between tasks; draw two or more (pretrain.align_tasks)")
    if len(examples.tasks) < 2:
        raise DataError(
            f"training tasks: only {', '.join(examples.tasks)}; gradient alignment is between tasks and needs two or more"
        )
    drawn = random.Random(f"{seed}/align").sample(range(len(examples.tasks)), min(tasks, len(examples.tasks)))
    batches = {}
    for task in sorted(drawn):
        name = examples.tasks[task]
        samples = examples.of(tasks=[name], split="train").all_references()
        rows = Order(len(samples), f"{seed}/align/{name}").slice(0, min(size, len(samples)))
        batches[name] = collate([samples[row] for row in rows], [[task]])
    return batches


def gradient_alignment(
    model: AdaptedModel, batches: Mapping[str, Batch], *, advance: Callable[[], None] = lambda: None
) -> Alignment:
    """Measure how far the gradients of tasks agree.

    Nothing is changed: neither parameters nor their gradients, nor any state of a random generator; the model is in evaluation
    mode meanwhile. Nothing in here waits for another process, so one of several may measure while the others train on, unless
    each has a part of the backbone's weights alone: then all measure the same.
    The composed gradients of all tasks, each as many numbers as one LoRA of the model, are kept in CPU memory.

    Args:
        model: with an adapter that all tasks share.
        batches: {task: its batch, one group of rows}; two or more.
        advance: is called after each task.

    Raises:
        ValueError: if the adapter has several runs or none, or there are not two batches.
        DivergedError: if a gradient is not finite; names the task and the layers.
    """
    adapter = model.adapter
    if adapter is None or not adapter.has_alignment or adapter.runs != 1 or len(batches) < 2:
        raise ValueError("alignment is of two or more tasks on one adapter that they share")
    device, was_training = model.backbone.device, model.training
    objective = Objective("token_mean", 0.0)
    gradients: dict[str, list[Tensor]] = {layer: [] for layer in adapter.shapes}
    model.eval()
    for task, batch in batches.items():
        of_task = _composed_gradients(model, adapter, batch.to(device), objective)
        require_finite(of_task, f"alignment: the gradients of {task}", error=DivergedError, how="lower the learning rates")
        for layer, gradient in of_task.items():
            gradients[layer].append(gradient)
        advance()
    overlaps = _routing_overlaps(adapter, torch.cat([batch.task_ids for batch in batches.values()], 1).to(device))
    model.train(was_training)
    shared, composed = {}, {}
    for layer, by_task in gradients.items():
        stacked = torch.stack(by_task).double()  # [tasks, heads, numbers]
        products = torch.einsum("thn,uhn->htu", stacked, stacked)
        composed[layer] = products.sum(0)
        shared[layer] = (products * overlaps[layer]).sum(0) if overlaps else composed[layer]
    halves = {} if is_causal(model.backbone.config) else by_coder(list(composed))
    return Alignment(tuple(batches), _agreement(shared, halves), _agreement(composed, halves))


def _composed_gradients(model: AdaptedModel, adapter: Adapter, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Take the gradient of a task's loss on its composed adapter.

    Returns:
        {layer: [heads, numbers]}: of a head, its part of A^t and of B^t without the scaling, or of (IA)3's vector.
    """
    slots: dict[str, Tensor] = {}

    def replace_slots(_module: nn.Module, _inputs: Any, composed: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
        slots.update({name: slot.detach().requires_grad_() for name, slot in composed.items()})
        return slots

    with torch.enable_grad(), adapter.register_forward_hook(replace_slots):
        loss = objective(model, batch, runs=1).sum()
    gradients = torch.autograd.grad(loss, list(slots.values()), materialize_grads=True)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in adapter.shapes}
    for name, gradient in zip(slots, gradients, strict=True):
        layer, _, slot = name.rpartition(".")
        by_head = gradient[0].float().unflatten(-1, (adapter.heads, -1)).movedim(-2, 0).flatten(1)  # of [rank, d] or [d]
        parts[layer].append((by_head * adapter.scaling if slot == "up" else by_head).cpu())
    return {layer: torch.cat(of_layer, 1) for layer, of_layer in parts.items()}


@torch.no_grad()
def _routing_overlaps(adapter: Adapter, task_ids: Tensor) -> dict[str, Tensor]:
    """What two tasks' routings have in common, sum_k a[t,h,k] a[u,h,k].

    Args:
        adapter: in evaluation mode.
        task_ids: [1, tasks].

    Returns:
        {layer: [heads, tasks, tasks]}; nothing for an adapter without routing.
    """
    mixing = {layer: weights.double().cpu() for layer, weights in adapter.mixing(task_ids).items()}
    return {layer: torch.einsum("thk,uhk->htu", weights, weights) for layer, weights in mixing.items()}


def _agreement(products: Mapping[str, Tensor], halves: Mapping[str, Sequence[str]]) -> Agreement:
    """Mean cosines.

    Args:
        products: {layer: of all pairs of gradients on it, [tasks, tasks]}.
        halves: {coder: its layers}.
    """

    def within(coder: str) -> float | None:
        return _mean_cosine([products[layer] for layer in halves[coder]]) if coder in halves else None

    return Agreement(
        _mean_cosine(list(products.values())),
        within("encoder"),
        within("decoder"),
        {layer: _mean_cosine([product]) for layer, product in products.items()},
    )


def _mean_cosine(products: Sequence[Tensor]) -> float:
    """The mean cosine over pairs t < u; a gradient of zero agrees with none, so that its cosines are 0.

    Args:
        products: of the gradients on some layers, each [tasks, tasks].
    """
    total = torch.stack(list(products)).sum(0)
    norms = total.diagonal().sqrt()
    # A gradient that is zero on paper comes out as rounding of fp32 on some machines, and rounding points anywhere.
    norms = torch.where(norms > ROUNDING * norms.max(), norms, 0.0)
    lengths = norms[:, None] * norms
    cosines = torch.where(lengths == 0, 0.0, total / lengths)  # and not a number where a gradient is none
    first, second = torch.triu_indices(len(total), len(total), 1)
    return cosines[first, second].mean().item()
