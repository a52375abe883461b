"""Several processes share a training: what they do in turn, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn


@contextmanager
def in_turn(accelerator: Accelerator) -> Iterator[None]:
    """Let the processes of each machine do something one after the other, such as what takes much of its memory.

    What fails in one is tried in the others all the same, so that each says what is wrong and none waits for another.
    """
    place = torch.tensor([accelerator.local_process_index], device=accelerator.device)
    turns = int(accelerator.gather(place).max()) + 1
    for _ in range(accelerator.local_process_index):
        accelerator.wait_for_everyone()
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is raised below
        failure = error
    for _ in range(accelerator.local_process_index, turns):
        accelerator.wait_for_everyone()
    if failure is not None:
        raise failure


def share_values(tensors: Iterable[Tensor]) -> None:
    """Give all processes the values of the first."""
    for tensor in tensors:
        broadcast(tensor.detach())


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Give all processes the mean of their gradients, in one exchange.

    Raises:
        ValueError: if there is a parameter without one.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if len(grads) < len(parameters):
        raise ValueError(f"{len(parameters) - len(grads)} parameters have no gradient, which processes would exchange")
    mean = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, part in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))
