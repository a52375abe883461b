"""The process that measures: its environment, and its silence."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

from benchmarks.console import shown

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "536870912",
}
"""One thread, and an allocator that keeps its memory: otherwise page faults are timed too, which are dear and noisy."""


M_MMAP_THRESHOLD, M_MMAP_MAX = -3, -4
"""Numbers of glibc's settings of allocation, in malloc.h."""


def restart_with_settings() -> None:
    """Start the process again with `SETTINGS`, which are read when it starts; does nothing where they are set."""
    missing = {name: value for name, value in SETTINGS.items() if os.environ.get(name) != value}
    if missing:
        shown("starting again with " + " ".join(f"{name}={value}" for name, value in missing.items()))
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], os.environ | SETTINGS)  # noqa: S606


def give_back_large_blocks() -> None:
    """Give blocks of 32 MB and more back to the system when they are free: logits of a large vocabulary would fill any memory.

    Of several sizes, none fits into the hole that another has left.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # of glibc
        for parameter, value in ((M_MMAP_THRESHOLD, 32 * 2**20), (M_MMAP_MAX, 2**16)):
            libc.mallopt(parameter, value)


def quieten() -> None:
    """Silence what libraries report of models made from nothing."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
