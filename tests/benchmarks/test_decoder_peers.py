"""The peers over a decoder compute what we compute, packed or padded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.decoder_peers import causal_lora, causal_mhr, causal_ours, frozen_packed, packed_row, places, sequences
from benchmarks.decoder_shapes import DECODERS, batch_of, new_decoder, samples_of, twin
from benchmarks.peers import UnequalError, require_equal

MICRO = DECODERS["micro"]
LENGTHS = [(20, 3), (5, 1), (30, 6)]
"""The longest are longer than the window."""
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("heads", [None, 1, 8])
def test_losses_and_gradients_of_peft_are_ours(heads: int | None, packing: bool) -> None:
    model, batch = new_decoder(MICRO), batch_of(samples_of(LENGTHS, MICRO.vocabulary))
    mine = causal_ours(twin(model), heads=heads, rows=3, packing=packing)
    peers: list[Any] = (
        [causal_lora(twin(model)), causal_lora(twin(model), all_logits=True)]
        if heads is None
        else [causal_mhr(twin(model), heads=heads)]
    )
    mine.model.eval()
    mine.objective(mine.model, batch, runs=1).sum().backward()
    grads = [parameter.grad for parameter in mine.adapter.parameters() if parameter.grad is not None]
    square = torch.stack([grad.square().sum() for grad in grads]).sum()
    for theirs in peers:
        with pytest.raises(UnequalError):
            require_equal("loss", mine.losses(batch), theirs.loss(batch), tolerance=1e-6)
        theirs.copy(mine.adapter)
        require_equal("loss", mine.losses(batch), theirs.loss(batch), tolerance=1e-5)
        theirs.model.eval()
        theirs.training_loss(batch).backward()
        others = [parameter.grad for parameter in theirs.model.parameters() if parameter.grad is not None]
        assert len(others) > len(grads)  # ours are stacked
        other = torch.stack([grad.square().sum() for grad in others]).sum()
        assert other.item() == pytest.approx(square.item(), rel=1e-3)


def test_answers_of_peft_are_ours() -> None:
    model, batch = new_decoder(MICRO), batch_of(samples_of(LENGTHS, MICRO.vocabulary))
    mine, theirs = causal_ours(twin(model), heads=None, rows=3), causal_lora(twin(model))
    theirs.copy(mine.adapter)
    options = {"do_sample": False, "min_new_tokens": 5, "max_new_tokens": 5}
    mine.model.eval()
    theirs.model.eval()
    assert torch.equal(
        mine.model.generate(batch.task_ids[:, :1], batch.inputs, **options), theirs.generate(batch.inputs, **options)
    )


def test_rows_are_laid_out_by_hand() -> None:
    batch = batch_of(samples_of([(3, 2), (1, 3)], MICRO.vocabulary))
    prompts, targets = batch.inputs.tokens.tolist(), batch.targets.tokens.tolist()
    assert sequences(batch, last=True).tokens.tolist() == [*prompts[:3], *targets[:2], prompts[3], *targets[2:]]
    assert sequences(batch, last=False).lengths == (4, 3)
    assert places(batch, packed=True).tolist() == [2, 3, 4, 5, 6]
    assert places(batch, packed=False).tolist() == [2, 3, 4, 5, 6]  # the first row is the longest
    row = packed_row(batch)
    assert row["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert row["cu_seq_lens_q"].tolist() == [0, 4, 7]


def test_the_frozen_limit_goes_back_to_the_first_layer() -> None:
    model = new_decoder(MICRO)
    reached: list[torch.nn.Module] = []
    first = model.get_submodule("model.layers.0.self_attn.q_proj")
    first.register_full_backward_hook(lambda layer, _grads, _outputs: reached.append(layer))
    frozen_packed(model, batch_of(samples_of(LENGTHS, MICRO.vocabulary)))()
    assert reached == [first]
    assert all(parameter.grad is None for parameter in model.parameters())
