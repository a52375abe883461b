"""The measurement of a decoder on a micro model: the rows that it promises, and numbers that can be."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from benchmarks import decoder, decoder_memory
from benchmarks.peers import UnequalError

LENGTHS = (((20, 3), (5, 1), (30, 6), (8, 2)), ((9, 2), (12, 1), (4, 4), (7, 2)))
PLAN = decoder.Plan("micro", False, LENGTHS, 1, runs=3, adapters=2, answers=2, new_tokens=3)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are Linux's to say")
def test_decoder() -> None:
    measured = decoder.measure(PLAN)
    for row in measured.rows:
        assert 0 < row.value.low <= row.value.median <= row.value.high < math.inf, row
    assert all(0 < number < math.inf for number in measured.figures.values())
    gates = [(row.gate, row.aim, row.more_is_better) for row in measured.rows if row.gate is not None]
    assert gates == [
        *[(0.90, 0.75, False)] * 4,
        (2.2, 3.0, True),
        (4.0, 6.0, True),
        (1.15, 1.05, False),
        (2.0, 3.0, True),
        (1.5, 3.0, True),
        *[(0.5, 0.35, False)] * 2,
    ]
    assert "random numbers" in measured.notes[0]
    assert "8 rows; " in measured.notes[1]
    assert "3 adaptations one by one with peft, target logits / side by side" in "".join(row.what for row in measured.rows)


def test_nothing_is_timed_where_losses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.Peer.copy", lambda *_: None)
    with pytest.raises(UnequalError):
        decoder.measure(PLAN)


def test_a_step_that_fails_in_its_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(decoder_memory.UnmeasuredError, match="a step of MHR"):
        decoder_memory.step_memory("MHR", decoder="micro", named=False, lengths=[(5, 2)], precision="fp32")
