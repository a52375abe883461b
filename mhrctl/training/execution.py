"""An execution says how a stage runs, as its settings say what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.placement import spread
from mhrctl.models.sharding import is_sharded, shard
from mhrctl.models.speed import Sharding, Speed
from mhrctl.progress import Recorder, Stop, Track, Warn, silent, unheard, unrecorded, unstoppable
from mhrctl.training.pauses import CHECKPOINT_SECONDS, Pauses
from mhrctl.training.processes import average_gradients, in_turn, share_values


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
        sharding: how frozen weights are divided among several processes; None leaves all of them to each.
        stop: asks a training to end where it can go on from.
        checkpoint_seconds: of training, between checkpoints.
    """

    accelerator: Accelerator
    speed: Speed = Speed()
    track: Track = silent
    recorder: Recorder = unrecorded
    warn: Warn = unheard
    device_map: str | None = None
    sharding: Sharding | None = None
    stop: Stop = unstoppable
    checkpoint_seconds: float = CHECKPOINT_SECONDS

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
        if is_sharded(backbone):
            if adapter is not None:
                adapter.to(self.accelerator.device)
            return AdaptedModel(backbone, adapter, speed=self.speed)
        self.place(backbone)
        speed = self.speed if self.device_map is None else replace(self.speed, forward=False)  # which reads weights directly
        return AdaptedModel(backbone, adapter, speed=speed).to(self.accelerator.device)

    def place(self, backbone: PreTrainedModel) -> None:
        """Put a backbone, in its precision and with its slots, where it is run."""
        if self.device_map is None:
            backbone.to(self.accelerator.device)
        else:
            spread(backbone, self.device_map, self.accelerator.device)

    @contextmanager
    def loading(self) -> Iterator[Callable[[PreTrainedModel], None]]:
        """Give a backbone that is loaded meanwhile to what this gives: it divides the frozen weights, if that is wanted.

        Then the processes of a machine load one after the other, each when the one before has kept its part alone.
        """
        if self.sharding is None:
            yield lambda _backbone: None
            return
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        with in_turn(self.accelerator):
            yield partial(shard, mesh=mesh, sharding=self.sharding)

    @contextmanager
    def pausing(self) -> Iterator[Pauses]:
        """Give the pauses of a training, which may be asked to end until the context does."""
        with self.stop() as asked:
            yield Pauses(self.accelerator, asked, seconds=self.checkpoint_seconds)

    def prepared(self, model: AdaptedModel, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return a model on the device, and the optimizer of its adapter, as accelerate wants both for training."""
        if not is_sharded(model.backbone):
            wrapped, optimizer = self.accelerator.prepare(model, optimizer)
            return wrapped, optimizer
        # What is trained is small, and each process has all of it.
        if model.adapter is not None:
            model.adapter.to(self.accelerator.device)
            share_values((*model.adapter.parameters(), *model.adapter.buffers()))
        return model, self.accelerator.prepare(optimizer)

    def exchange(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average gradients over the processes, where accelerate's model has not done so in backward."""
        if self.sharding is not None:
            average_gradients(parameters, self.accelerator)

    def together(self, adapter: Adapter | None) -> int:
        """Return how many tasks go into one batch: one of those whose adapter replaces the weights that a model has once."""
        return 1 if adapter is not None and adapter.replaces_weights else self.speed.together
