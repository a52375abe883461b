"""How a stage runs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from accelerate import Accelerator

from mhrctl.models.speed import Speed
from mhrctl.progress import silent, unrecorded
from mhrctl.training.execution import Execution


def test_nothing_asked_for_is_quick_and_silent(accelerator: Accelerator) -> None:
    plain = Execution(accelerator)
    assert (plain.speed, plain.track, plain.recorder) == (Speed(), silent, unrecorded)
    with plain.track("work", 2) as bar:
        bar.advance()
    plain.recorder.log(1, {"loss": 0.5})
    with pytest.raises(FrozenInstanceError):
        plain.speed = Speed(together=1)  # type: ignore[misc]
