"""What processes do in turn, and what they tell each other: here threads are processes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mhrctl.training import processes
from mhrctl.training.processes import average_gradients, in_turn, share_values


class Fellow:
    """One of several processes on two machines, as far as accelerate says who it is and lets them talk."""

    def __init__(self, local: int, barrier: threading.Barrier, said: list[Tensor]) -> None:
        self.local_process_index, self._barrier, self._said = local, barrier, said
        self.device = torch.device("cpu")

    def wait_for_everyone(self) -> None:
        self._barrier.wait(20)

    def gather(self, tensor: Tensor) -> Tensor:
        self._said.append(tensor)
        self.wait_for_everyone()
        return torch.cat(self._said)


def fellows_on_two_machines() -> list[Fellow]:
    barrier, said = threading.Barrier(6), list[Tensor]()
    return [Fellow(place, barrier, said) for place in (0, 1, 2, 0, 1, 2)]


def test_processes_of_a_machine_take_turns_and_machines_do_not() -> None:
    events: list[tuple[str, int]] = []

    def work(fellow: Any) -> None:
        with in_turn(fellow):
            events.append(("begins", fellow.local_process_index))
            time.sleep(0.01)
            events.append(("ends", fellow.local_process_index))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, fellows_on_two_machines()))
    for turn in range(3):
        assert sorted(events[4 * turn : 4 * turn + 4]) == [("begins", turn)] * 2 + [("ends", turn)] * 2


def test_a_failure_of_one_is_tried_by_all() -> None:
    """A process that left while others wait for it would leave them with an error of the network."""

    def work(fellow: Any) -> str:
        with pytest.raises(ZeroDivisionError) as failed, in_turn(fellow):
            fellow.local_process_index // 0
        return str(failed.value)

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(work, fellows_on_two_machines()))) == 6


def test_one_process_waits_for_nobody(accelerator: Accelerator) -> None:
    with in_turn(accelerator):
        done = True
    assert done


def test_gradients_become_their_mean(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))
    one.grad, other.grad = torch.arange(6.0).view(2, 3), torch.arange(4.0)
    exchanged: list[Tensor] = []

    def reduce(tensor: Tensor, how: str) -> Tensor:
        assert how == "mean"
        exchanged.append(tensor.clone())
        return tensor + torch.arange(10.0)

    monkeypatch.setattr(accelerator, "reduce", reduce)
    average_gradients([one, other], accelerator)
    assert [tensor.tolist() for tensor in exchanged] == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
    assert one.grad.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert other.grad.tolist() == [6, 8, 10, 12]


def test_a_parameter_without_a_gradient_is_no_mean(accelerator: Accelerator) -> None:
    with pytest.raises(ValueError, match="1 parameters have no gradient"):
        average_gradients([nn.Parameter(torch.zeros(2))], accelerator)


def test_all_take_the_values_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "broadcast", lambda tensor: tensor.fill_(7))
    parameter, buffer = nn.Parameter(torch.zeros(2)), torch.zeros(1, dtype=torch.uint8)
    share_values([parameter, buffer])
    assert (parameter.tolist(), buffer.tolist()) == ([7, 7], [7])
