"""An execution says how a stage runs, as its settings say what it computes."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from mhrctl.models.speed import Speed
from mhrctl.progress import Recorder, Track, silent, unrecorded


@dataclass(frozen=True)
class Execution:
    """An execution is how a stage runs: nothing in it changes a result beyond rounding, and no key or card holds it.

    Attributes:
        accelerator: where to run; several processes share the micro-batches of a pre-training.
        speed: how to compute; `together` are the tasks in one batch.
        track: shows progress.
        recorder: takes the stage's numbers while it works.
    """

    accelerator: Accelerator
    speed: Speed = Speed()
    track: Track = silent
    recorder: Recorder = unrecorded
