"""Times and memory of a device."""

from __future__ import annotations

import gc
import time
from itertools import pairwise

import torch

from benchmarks.peers import Trainer


def timed(step: Trainer, *, device: torch.device, warmup: int, repetitions: int) -> list[float]:
    """Seconds of each repetition: between CUDA events, the last waited for; on the CPU by the clock."""
    for _ in range(warmup):
        step()
    if device.type == "cpu":
        moments = [time.perf_counter()]
        for _ in range(repetitions):
            step()
            moments.append(time.perf_counter())
        return [after - before for before, after in pairwise(moments)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repetitions + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in pairwise(events)]


def forget(device: torch.device) -> None:
    """Give back the memory of models that are gone, and count anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors had since memory was last forgotten; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
