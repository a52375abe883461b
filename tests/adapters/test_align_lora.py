"""Align-LoRA: distances between tasks against what they are defined as, and a plain LoRA in all else."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.align_lora import DISTANCES, EPS, WIDTHS, AlignLoRA
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.interchange.convert import to_weights
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training.objective import Objective
from tests.adapters.test_inventory import randomised

TASKS = torch.tensor([4, 7, 4, 9, 7, 4, 7])
"""Three rows of a task, three of another, and one of a third."""
SHAPES = {"a.q": (8, 12), "a.v": (8, 12), "b.o": (12, 8)}


def aligned(distance: str = "mmd", *, weight: float = 0.5) -> AlignLoRA:
    torch.manual_seed(0)
    adapter = AlignLoRA(SHAPES, InventoryConfig(rank=3, alpha=2.0), weight=weight, distance=distance)
    randomised(adapter)
    return adapter


def plain_discrepancy(one: Tensor, other: Tensor) -> Tensor:
    def kernel(left: Tensor, right: Tensor) -> Tensor:
        values = [torch.exp(-(x - y).square().sum() / (2 * width)) for x in left for y in right for width in WIDTHS]
        return torch.stack(values).sum() / (len(left) * len(right))

    return kernel(one, one) + kernel(other, other) - 2 * kernel(one, other)


def plain_divergence(one: Tensor, other: Tensor) -> Tensor:
    def towards(left: Tensor, right: Tensor) -> Tensor:
        given, taken = (torch.distributions.Normal(each.mean(0), (each.var(0) + EPS).sqrt()) for each in (left, right))
        return torch.distributions.kl_divergence(given, taken).sum()

    return (towards(one, other) + towards(other, one)) / 2


PLAIN = {"mmd": (plain_discrepancy, 1), "kl": (plain_divergence, 2)}


@pytest.mark.parametrize("distance", list(DISTANCES))
def test_the_distance_is_a_mean_over_layers_and_pairs_of_tasks(distance: str) -> None:
    between, least = PLAIN[distance]
    low = torch.randn(2, len(TASKS), 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    tasks = [task for task in (4, 7, 9) if TASKS.tolist().count(task) >= least]
    pairs = [
        between(of_layer[one == TASKS], of_layer[other == TASKS]) for of_layer in low for one, other in combinations(tasks, 2)
    ]
    expected = torch.stack(pairs).mean()
    given = DISTANCES[distance](low, TASKS)
    assert expected > 0.1
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(torch.autograd.grad(given, low)[0], torch.autograd.grad(expected, low)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distance", list(DISTANCES))
@pytest.mark.parametrize("tasks", [[3, 3, 3], [3]])
def test_a_task_alone_is_not_apart_from_anything(distance: str, tasks: list[int]) -> None:
    low = torch.randn(2, len(tasks), 3, requires_grad=True)
    given = DISTANCES[distance](low, torch.tensor(tasks))
    assert given == 0
    assert not torch.autograd.grad(given, low)[0].any()


@pytest.mark.parametrize("distance", list(DISTANCES))
def test_equal_tasks_have_no_distance_and_order_does_not_matter(distance: str) -> None:
    low = torch.randn(1, 2, 3)
    torch.testing.assert_close(DISTANCES[distance](low.repeat(1, 2, 1), torch.tensor([0, 0, 1, 1])), torch.tensor(0.0))
    low, order = torch.randn(2, len(TASKS), 3), torch.randperm(len(TASKS))
    torch.testing.assert_close(DISTANCES[distance](low[:, order], TASKS[order]), DISTANCES[distance](low, TASKS))


def tiny_batch() -> Batch:
    rows = [(0, [3, 4, 5], [6, 7, 1]), (1, [8, 9], [10, 1]), (0, [11], [4, 1]), (1, [5, 6, 7], [8, 1])]
    samples = [Sample(task, np.array(ids), np.array(target)) for task, ids, target in rows]
    return collate(samples, [[task for task, _, _ in rows]])


@pytest.mark.parametrize("distance", list(DISTANCES))
def test_the_loss_has_the_distance_of_the_low_rank_activations_of_rows(
    tiny_t5: T5ForConditionalGeneration, distance: str
) -> None:
    """A row alone has no padding: its mean is that of what each layer is called with."""
    torch.manual_seed(0)
    shapes = inject(tiny_t5, "full")
    adapter = randomised(AlignLoRA(shapes, InventoryConfig(rank=2), weight=0.3, distance=distance)).train()
    model, batch, plain = AdaptedModel(tiny_t5, adapter), tiny_batch(), Objective("token_mean", 0.1)
    tiny_t5.eval()
    low: dict[str, list[Tensor]] = {name: [] for name in shapes}
    for row, start in ((row, sum(batch.inputs.lengths[:row])) for row in range(4)):
        ids = batch.inputs.tokens[start : start + batch.inputs.lengths[row]]
        first = sum(batch.targets.lengths[:row])
        target = batch.targets.tokens[first : first + batch.targets.lengths[row]]
        sample = Sample(0, ids.numpy(), target.numpy())
        handles = [
            tiny_t5.get_submodule(name).register_forward_pre_hook(
                lambda layer, inputs, name=name: low[name].append((inputs[0][0] @ layer.down[0].T).mean(0))
            )
            for name in shapes
        ]
        plain.logits(model, collate([sample], [[0]]))
        for handle in handles:
            handle.remove()
    between = DISTANCES[distance](torch.stack([torch.stack(of_layer) for of_layer in low.values()]), batch.task_ids[0])
    expected = plain(model, batch, runs=1) + 0.3 * between
    given = adapter.objective(plain)(model, batch, runs=1)
    assert between > 1e-4
    assert given.shape == (1,)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)  # a divergence divides by variances near 0
    parameters = list(adapter.parameters())
    ours, theirs = torch.autograd.grad(given.sum(), parameters), torch.autograd.grad(expected.sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()


def test_without_weight_the_losses_are_as_they_were() -> None:
    plain = Objective("token_mean", 0.0)
    assert aligned(weight=0.0).objective(plain) is plain


def test_it_is_an_ordinary_lora_in_all_else(tmp_path: Path) -> None:
    adapter = aligned("kl")
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    back = load_adapter(tmp_path / "adapter.safetensors")
    assert isinstance(back, AlignLoRA)
    assert json.loads(json.dumps(back.settings())) == json.loads(json.dumps(adapter.settings()))
    average, new = adapter.average(), adapter.for_new_tasks([1, 2], train_skills=True)
    assert type(average) is type(new) is Inventory
    for one in (back, average, new.select([1])):
        for (name, slot), expected in zip(one().items(), adapter().values(), strict=True):
            assert torch.equal(slot, expected), name
    exported = to_weights(adapter)
    assert torch.equal(exported.layers["a.q"].lora_A, adapter.tensors()["a.q.lora_A"][0])
    plain = Objective("token_mean", 0.0)
    assert new.objective(plain) is plain
