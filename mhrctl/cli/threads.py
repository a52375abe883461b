"""A command has as many CPU threads as `--threads` says, whatever the machine has and its environment says of libraries.

One is the default, for the last bits of sums depend on the number, and so an output would depend on the machine. On a GPU the
CPU's threads only load and convert weights: they are left to the libraries, and their variables, unless a number is asked for.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mhrctl.running.machine import WAITING, may_have_gpu, thread_environment

DEFAULT = 1


def expected_threads(threads: int | None, device: str) -> int | None:
    """Return the number of threads that a command will have, before anything is imported; None if a GPU may do the work.

    Args:
        threads: of `--threads`.
        device: of `--device`.
    """
    return threads or (None if device == "auto" and may_have_gpu() else DEFAULT)


def prepare_threads(threads: int | None, device: str) -> None:
    """Tell libraries that are not loaded yet how many threads they have, and to wait without spinning."""
    os.environ.update(WAITING)
    if number := expected_threads(threads, device):
        limit_threads(number)


def limit_threads(number: int) -> None:
    """Limit the libraries of this process to so many threads: those loaded already at once, the others as they are loaded."""
    os.environ.update(thread_environment(number))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)
        with suppress(RuntimeError):  # it can be set once a process, before there are any
            torch.set_num_interop_threads(number)
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.set_cpu_count(number)


def taken_threads() -> int:
    """Return the number of threads that torch has taken in this process, which `open_accelerator` has imported."""
    return int(sys.modules["torch"].get_num_threads())
