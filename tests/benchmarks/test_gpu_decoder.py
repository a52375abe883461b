"""The decoder of a GPU, small and on the CPU."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import gpu_decoder
from benchmarks.peers import UnequalError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


def test_a_dry_run_measures_every_row() -> None:
    measured = gpu_decoder.measure(gpu_decoder.dry())
    assert len(measured.rows) == 4  # memory is counted on a GPU alone
    assert all(0 < row.value.low <= row.value.median <= row.value.high < math.inf for row in measured.rows)
    assert "qwen3 of 0.00 billion random weights; 3 rows" in measured.notes[0]
    assert measured.figures["MHR: real tokens a second"] > 0


def test_nothing_is_timed_where_losses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.Peer.copy", lambda *_: None)
    with pytest.raises(UnequalError):
        gpu_decoder.measure(gpu_decoder.dry())


def test_the_full_decoder_has_between_one_and_four_billion_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.manual_seed", lambda _seed: None)
    plan = gpu_decoder.full()
    assert (plan.precision, plan.device.type) == ("bf16", "cuda")
    model = gpu_decoder.new_qwen(gpu_decoder.Plan(plan.sizes, plan.lengths, plan.precision, torch.device("meta"), 0, 0))
    assert 1e9 < sum(weight.numel() for weight in model.parameters()) < 4e9
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
