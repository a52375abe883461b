"""A training stops at the first loss or gradient that is not finite, and no step waits for a device because of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from mhrctl.adapters.finite import all_finite
from mhrctl.errors import DivergedError, listed

Rates = Callable[[int], Mapping[str, float]]
"""Gives {setting: the learning rate} that a step of a number was taken with."""


@dataclass(frozen=True)
class Training:
    """A training is named by this when it diverges.

    Attributes:
        name: the stage and the cell.
        section: of params.yaml, where its learning rates are set.
        runs: names of what is trained side by side, such as its tasks; none if it is one adapter.
        kept: says what there is to go on from.
    """

    name: str = "training"
    section: str = "training"
    runs: Sequence[str] = ()
    kept: Callable[[], str] = lambda: "nothing was written"


UNNAMED = Training()
"""A training that nobody has named."""


class Watch:
    """A watch takes every step's losses and gradient norms on their device, and is asked of them where the host waits anyway.

    Attributes:
        is_free: whether an answer waits for nothing, neither a device nor another process: it may be asked at every step.
    """

    def __init__(self, training: Training, accelerator: Accelerator, rates: Rates, *, first: int) -> None:
        """Begin to watch.

        Args:
            training: its names.
            accelerator: which device it is on, and how many processes share it.
            rates: of a step, for the error.
            first: steps taken before.
        """
        self._training, self._accelerator, self._rates, self._first = training, accelerator, rates, first
        self._noted = 0
        self._finite = self._good = self._losses = torch.empty(0)
        self.is_free = accelerator.device.type == "cpu" and accelerator.num_processes == 1

    @torch.no_grad()
    def note(self, losses: Tensor, norms: Tensor) -> None:
        """Take a step; nothing here reads a number from the device.

        Args:
            losses: [runs].
            norms: of the gradients before they are clipped, [runs], or one of all.
        """
        finite = torch.isfinite(losses + norms)
        if self._noted:
            self._losses = torch.where(self._finite, losses, self._losses)  # at last those of each run's first bad step
            self._finite = self._finite & finite
            self._good = self._good + self._finite
        else:
            self._losses, self._finite, self._good = losses, finite, finite.long()
        self._noted += 1

    def require_finite(self) -> None:
        """Check all steps so far. The host waits for the device here; of several processes all must ask together.

        Raises:
            DivergedError: names the first step that was not finite, whose it is, and its rates.
        """
        if not self._noted:
            return
        good, losses = self._of_processes(self._good), self._of_processes(self._losses)
        least = int(good.min())
        if least == self._noted:
            return
        process, run = (int(place) for place in (good == least).nonzero()[0])
        runs = (good == least).any(0).nonzero().flatten().tolist()
        of = f" of {listed([self._training.runs[each] for each in runs])}" if self._training.runs else ""
        loss = float(losses[process, run])
        what = f"a gradient{of} is not finite (the loss is {loss:g})" if math.isfinite(loss) else f"the loss{of} is {loss}"
        raise self.error(what, self._first + least + 1)

    def require_finite_state(self, optimizer: Optimizer, step: int) -> None:
        """Check all that is trained, and what the optimizer keeps of it, after a step. The host waits for the device.

        Raises:
            DivergedError: says which of the two is not finite.
        """
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = [optimizer.state.get(parameter, {}) for parameter in trained]
        kept = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        for what, tensors in (("what is trained", trained), ("what the optimizer keeps", kept)):
            if not all_finite(tensors):
                raise self.error(f"{what} is not finite", step, when="after")

    def error(self, what: str, step: int, *, when: str = "at") -> DivergedError:
        """Make the error that says what diverged, when, and what to do."""
        training, rates = self._training, self._rates(step)
        section = training.section
        if when == "at" and step == 1:
            todo = (
                "nothing was trained before it, so no rate is to blame: look at the backbone, at the adapter that training"
                f" starts from, and at {section}.precision"
            )
        else:
            todo = f"lower {' or '.join(f'{section}.{name}' for name in rates)}"
        taken = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        return DivergedError(f"{training.name}: {what} {when} step {step} (learning rate: {taken}); {todo}; {training.kept()}")

    def _of_processes(self, values: Tensor) -> Tensor:
        """The values of all processes, [processes, runs]."""
        if self._accelerator.num_processes == 1:
            return values[None]
        gathered: Tensor = self._accelerator.gather(values[None])
        return gathered
