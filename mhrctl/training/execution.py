"""An execution says how a stage runs, as its settings say what it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.placement import spread
from mhrctl.models.speed import Speed
from mhrctl.progress import Recorder, Track, Warn, silent, unheard, unrecorded


@dataclass(frozen=True)
class Execution:
    """An execution is how a stage runs: nothing in it changes a result beyond rounding, and no key holds it.

    Attributes:
        accelerator: where to run; several processes share the micro-batches of a pre-training.
        speed: how to compute; `together` are the tasks in one batch.
        track: shows progress.
        recorder: takes the stage's numbers while it works.
        warn: shows what goes on in spite of a failure.
        device_map: how the backbone's layers are spread over devices; None has them all on the accelerator's.
    """

    accelerator: Accelerator
    speed: Speed = Speed()
    track: Track = silent
    recorder: Recorder = unrecorded
    warn: Warn = unheard
    device_map: str | None = None

    @property
    def threads(self) -> int | None:
        """The CPU threads that torch computes with, on whose number the last bits depend; None on a GPU."""
        return torch.get_num_threads() if self.accelerator.device.type == "cpu" else None

    def adapted(self, backbone: PreTrainedModel, adapter: Adapter | None) -> AdaptedModel:
        """Return a backbone with an adapter, which may be none, on the device.

        Raises:
            ParamsError: if the layers cannot be where they are to be.
        """
        if self.device_map is not None and adapter is not None and adapter.replaces_weights:
            raise ParamsError("--device-map: weights that are trained as a whole are on one device; leave it out")
        self.place(backbone)
        speed = self.speed if self.device_map is None else replace(self.speed, forward=False)  # which reads weights directly
        return AdaptedModel(backbone, adapter, speed=speed).to(self.accelerator.device)

    def place(self, backbone: PreTrainedModel) -> None:
        """Put a backbone, in its precision and with its slots, where it is run."""
        if self.device_map is None:
            backbone.to(self.accelerator.device)
        else:
            spread(backbone, self.device_map, self.accelerator.device)

    def together(self, adapter: Adapter | None) -> int:
        """Return how many tasks go into one batch: one of those whose adapter replaces the weights that a model has once."""
        return 1 if adapter is not None and adapter.replaces_weights else self.speed.together
