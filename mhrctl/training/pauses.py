"""A training pauses after some of its steps: to leave a checkpoint every few minutes, and to end where it is asked to.

When is a matter of time, which changes no result. Several processes share a training only if all of them pause after the same
step: they agree on it, every few seconds, in one exchange of three numbers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from mhrctl.progress import Asked

CHECKPOINT_SECONDS = 300.0
"""Seconds of training between checkpoints, unless it is said otherwise."""
AGREE_SECONDS = 2.0
"""Seconds between two agreements of several processes, about."""
MOST = 1000
"""Steps between two agreements, at the most."""


@dataclass(frozen=True)
class Pause:
    """What is to be done after a step.

    Attributes:
        saves: whether a checkpoint is written.
        stops: whether the training ends, with a checkpoint.
    """

    saves: bool
    stops: bool


class Pauses:
    """These are the pauses of one training; of several processes, each asks after every step."""

    def __init__(self, accelerator: Accelerator, asked: Asked, *, seconds: float = CHECKPOINT_SECONDS) -> None:
        """Begin now.

        Args:
            accelerator: how many processes there are.
            asked: whether this process has been asked to stop.
            seconds: between checkpoints.
        """
        self._accelerator, self._asked, self._seconds = accelerator, asked, seconds
        self._saved = self._agreed = time.monotonic()
        self._last, self._next = -1, 0  # steps of the last agreement and the next

    def after(self, step: int) -> Pause:
        """Return what is to be done after a step of a number."""
        now = time.monotonic()
        stops, late = self._asked(), now - self._saved >= self._seconds
        if self._accelerator.num_processes > 1:
            if step < self._next:
                return Pause(saves=False, stops=False)
            stops, late = self._agree(step, now, stops=stops, late=late)
        if stops or late:
            self._saved = now
        return Pause(saves=stops or late, stops=stops)

    def _agree(self, step: int, now: float, *, stops: bool, late: bool) -> tuple[bool, bool]:
        """What any of the processes wants; the next agreement is after as many steps as take some seconds on average."""
        pace = 1.0 if self._last < 0 else AGREE_SECONDS * (step - self._last) / max(now - self._agreed, 1e-3)
        wishes = torch.tensor([float(stops), float(late), min(pace, MOST)], device=self._accelerator.device)
        some_stop, some_late, paces = self._accelerator.reduce(wishes, "sum").tolist()
        self._last, self._agreed = step, now
        self._next = step + max(1, int(paces / self._accelerator.num_processes))
        return some_stop > 0, some_late > 0
