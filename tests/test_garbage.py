"""Garbage is looked for rarely, and then as before."""

from __future__ import annotations

import gc

import pytest

from mhrctl.garbage import EVERY, rarely_collected


def test_thresholds_come_back_whatever_happens() -> None:
    before = gc.get_threshold()
    assert before[0] < EVERY

    @rarely_collected()
    def fails() -> None:
        assert gc.get_threshold() == (EVERY, *before[1:])
        raise ValueError("for a reason")

    for _ in range(2):
        with pytest.raises(ValueError, match="for a reason"):
            fails()
        assert gc.get_threshold() == before
