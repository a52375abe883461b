"""What this machine has for jobs: cores and GPUs, and what a process must be told so that it takes its part of them.

A thread of OpenMP that waits for others spins by default, for what may be a whole time slice of another job. Jobs that have as
many threads as the machine has cores therefore cost each other many times what they need, and so do their libraries' other
pools. So each process has one thread unless it is asked for more, and what waits, sleeps.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mhrctl.errors import ParamsError, listed

THREADS = "MHRCTL_THREADS"
"""This environment variable says how many CPU threads a command of mhrctl has, as `--threads` does."""
LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS")
"""By these libraries are told, when they are loaded: OpenMP (torch, scikit-learn, pyarrow), BLAS (numpy), and tokenizers."""
WAITING: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for others leave the core to whoever has work."""
DRIVERS = ("nvidia[0-9]*", "nvidiactl", "nvhost-*", "nvgpu", "kfd", "dxg")
"""Device files of GPU drivers: NVIDIA's, those of its boards, AMD's, and that of Windows' subsystem for Linux."""
GPU = re.compile(r"\d{1,4}|(GPU|MIG)-[0-9A-Za-z/-]+", re.ASCII)
LISTED = re.compile(r"^GPU (\d+):|\(UUID: ([^)]+)\)", re.MULTILINE)
SMI_SECONDS = 20


def cores() -> int:
    """Count the cores that this process may use: of the machine, its affinity, and its container's quota the least."""
    import joblib  # type: ignore[import-untyped]  # which knows of all three

    return int(joblib.cpu_count())


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries are to have so many threads, read when they are loaded."""
    return {**dict.fromkeys(LIBRARIES, str(threads)), **WAITING}


def may_have_gpu() -> bool:
    """Whether there may be a GPU for a process with this environment, as its driver's files tell, without importing torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return False
    return platform.system() == "Darwin" or _has_driver()


def require_gpus(names: Sequence[str]) -> list[str]:
    """Check what `--gpus` names: numbers or UUIDs, each once, that this machine has, as far as its driver tells.

    Returns:
        The names, numbers without leading zeros.

    Raises:
        ParamsError: naming the first that is none.
    """
    for name in names:
        if not GPU.fullmatch(name):
            what = repr(name) if name else "an empty entry"
            raise ParamsError(f"--gpus: {what} is no GPU; give numbers from 0 on, or UUIDs of `nvidia-smi -L`, as in 0,1")
    gpus = [str(int(name)) if name.isdigit() else name for name in names]
    if repeated := [gpu for gpu in gpus if gpus.count(gpu) > 1]:
        raise ParamsError(f"--gpus: {repeated[0]} occurs twice; to share a GPU set `run.slots` in params.yaml")
    known = _known_gpus() if gpus else None
    for gpu in gpus:
        if known is not None and not any(gpu == one or (not gpu.isdigit() and one.startswith(gpu)) for one in known):
            raise ParamsError(f"--gpus: {gpu}: " + (f"no such GPU here (known: {listed(known)})" if known else "no GPU here"))
    return gpus


def _has_driver() -> bool:
    return any(True for pattern in DRIVERS for _ in Path("/dev").glob(pattern))


def _known_gpus() -> list[str] | None:
    """The numbers and UUIDs of this machine's GPUs; None if that cannot be told."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "-L"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SMI_SECONDS).stdout  # noqa: S603
        return [number or uuid for number, uuid in LISTED.findall(listing)]
    return None if platform.system() == "Darwin" or _has_driver() else []
