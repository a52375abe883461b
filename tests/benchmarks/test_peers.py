"""The peers compute what we compute, and what is told apart is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.peers import UnequalError, always, cycle, frozen_trainer, ours, peft_lora, peft_mhr, require_equal
from benchmarks.shapes import SHAPES, new_backbone, new_batch, new_samples
from mhrctl.data.batches import Batch, Ragged
from mhrctl.models.speed import Speed

MICRO = SHAPES["micro"]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


@pytest.mark.parametrize("speed", [Speed(), Speed().without(["all"])], ids=["on", "off"])
@pytest.mark.parametrize("heads", [None, 1, 8])
def test_losses_and_gradients_of_peft_are_ours(heads: int | None, speed: Speed) -> None:
    batch = new_batch(MICRO)
    mine = ours(MICRO, heads=heads, speed=speed)
    theirs: Any = peft_lora(MICRO) if heads is None else peft_mhr(MICRO, heads=heads)
    with pytest.raises(UnequalError, match=r"loss: differs by .* of the value, more than 1e-04; nothing was timed"):
        require_equal("loss", mine.losses(batch), theirs.loss(batch))
    theirs.copy(mine.adapter)
    require_equal("loss", mine.losses(batch), theirs.loss(batch), tolerance=1e-5)
    mine.model.eval()
    theirs.model.eval()
    mine.objective(mine.model, batch, runs=1).sum().backward()
    theirs.model(**theirs.inputs(batch)).loss.backward()
    grads = [parameter.grad for parameter in mine.adapter.parameters() if parameter.grad is not None]
    others = [parameter.grad for parameter in theirs.model.parameters() if parameter.grad is not None]
    assert len(others) > len(grads)  # ours are stacked
    squares = [sum(grad.square().sum() for grad in every) for every in (grads, others)]
    assert squares[0] == pytest.approx(squares[1].item(), rel=1e-3)


def test_precision_of_the_backbone_leaves_adapters_in_fp32() -> None:
    mine, theirs = ours(MICRO, heads=8, precision="bf16"), peft_mhr(MICRO, heads=8, precision="bf16")
    for model, adapters in (
        (mine.model, list(mine.adapter.parameters())),
        (theirs.model, [parameter for parameter in theirs.model.parameters() if parameter.requires_grad]),
    ):
        assert {parameter.dtype for parameter in adapters} == {torch.float32}
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32, torch.bfloat16}


def test_trainers_train() -> None:
    batch = new_batch(MICRO)
    mine, theirs = ours(MICRO, heads=8), peft_mhr(MICRO, heads=8)
    for model in (mine, theirs):
        before = (mine.losses(batch) if model is mine else theirs.loss(batch)).item()
        step = model.trainer(always(batch))
        for _ in range(30):
            step()
        after = (mine.losses(batch) if model is mine else theirs.loss(batch)).item()
        assert after < before


def test_runs_side_by_side_start_apart() -> None:
    mine = ours(MICRO, heads=8).adapting(3)
    assert mine.adapter.runs == 3
    batch = new_batch(MICRO)
    inputs, targets = (Ragged(rows.tokens.repeat(3), rows.lengths * 3) for rows in (batch.inputs, batch.targets))
    task_ids = torch.zeros(3, 1, dtype=torch.long)
    losses = mine.losses(Batch(task_ids, inputs, targets, batch.choices.repeat(3), batch.gold.repeat(3)))
    assert losses.shape == (3,)
    assert len(set(losses.tolist())) == 3


def test_the_frozen_limit_goes_back_to_the_first_layers() -> None:
    backbone = new_backbone(MICRO)
    reached: list[torch.nn.Module] = []
    first = [backbone.get_submodule(f"{stack}.block.0.layer.0.SelfAttention.q") for stack in ("encoder", "decoder")]
    for layer in first:
        layer.register_full_backward_hook(lambda layer, _grads, _outputs: reached.append(layer))
    frozen_trainer(backbone, new_batch(MICRO))()
    assert set(reached) == set(first)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_batches_are_as_said() -> None:
    batch = new_batch(MICRO)
    assert batch.inputs.mask().shape == (MICRO.rows, MICRO.inputs)
    assert batch.labels.shape == (MICRO.rows, MICRO.targets)
    assert batch.inputs.mask().sum(1).min() >= MICRO.inputs // 2
    assert new_batch(MICRO, shortest=1.0).inputs.mask().all()
    samples = new_samples(MICRO, 5, choices=3)
    assert all(len(sample.choices) == 3 and sample.choices[0] is sample.target_ids for sample in samples)
    assert [cycle([batch, batch])(micro) for micro in range(3)] == [batch] * 3
