"""The loop: equal to a plain one, the same every time, and resumable."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.params import PretrainParams
from mhrctl.data.batches import Batch
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.training.checkpoint import load_checkpoint, save_checkpoint
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.objective import Objective
from mhrctl.training.optimizers import clip_runs, optimizer_of

STEPS = 6


def batch(micro: int) -> Batch:
    generator = torch.Generator().manual_seed(micro)
    ids = torch.randint(3, 40, (4, 6), generator=generator)
    labels = torch.randint(3, 40, (4, 3), generator=generator)
    ones, zeros = torch.ones(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    return Batch(torch.tensor([[0, 1, 2, 1]]), ids, torch.ones_like(ids), labels, ones, zeros)


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
        objective=Objective("token_mean", 0.0, 0),
        clip=lambda: clip_runs(list(inventory.parameters()), 1.0),
        accelerator=accelerator,
        schedule=Schedule(STEPS, warmup=0.5, seed=3, first=first),
    )
    return [step.losses.item() for step in itertools.islice(steps, until - first)]


def adamw(inventory: Inventory) -> torch.optim.Optimizer:
    return optimizer_of(inventory, PretrainParams(steps=STEPS, batch_size=4, lr=0.01, routing_lr=0.1, weight_decay=0.01))


def test_the_loss_is_transformers_own(tiny_t5: T5ForConditionalGeneration, accelerator: Accelerator) -> None:
    with torch.no_grad():
        theirs = tiny_t5(input_ids=batch(0).input_ids, attention_mask=batch(0).attention_mask, labels=batch(0).labels).loss
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
        labels, mask = torch.cat([first.labels, second.labels]), torch.cat([first.attention_mask, second.attention_mask])
        ids = torch.cat([first.input_ids, second.input_ids])
        ones, zeros = torch.ones(len(ids), dtype=torch.long), torch.zeros(len(ids), dtype=torch.long)
        return Batch(torch.cat([first.task_ids, second.task_ids], 1), ids, mask, labels, ones, zeros)

    results = []
    for accumulation, batches in ((2, batch), (1, joined)):
        torch.manual_seed(1)
        inventory = Inventory(shapes, InventoryConfig(heads=4, skills=2), tasks=3)
        optimizer = torch.optim.SGD(inventory.parameters(), lr=0.1)
        steps = fit(
            AdaptedModel(tiny_t5, inventory),
            optimizer,
            batches=batches,
            objective=Objective("example_sum", 0.1, 0),
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
