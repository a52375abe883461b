"""The most memory that a step of a decoder takes: each step in a process of its own, whose peak Linux keeps.

`python -m benchmarks.decoder_memory` is that process. Memory is what is resident beyond what the process held before the model
was made, frozen weights included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.decoder_peers import causal_lora, causal_ours
from benchmarks.decoder_shapes import DECODERS, batch_of, named_folder, new_decoder, samples_of
from benchmarks.peers import Precision, Trainer, always
from benchmarks.process import SETTINGS, quieten
from mhrctl.models.backbones import PRECISIONS

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KB = 1024
HEADS = 8


class UnmeasuredError(Exception):
    """A step in a process of its own did not end well."""


def step_memory(name: str, *, decoder: str, named: bool, lengths: Sequence[tuple[int, int]], precision: Precision) -> int:
    """Bytes of a step, in a new process with an allocator as it is by itself.

    Args:
        name: of the step: `MHR`, `peft LoRA` or `peft LoRA, all logits`.
        decoder: a name of `DECODERS`.
        named: whether the environment may name a folder in its place.
        lengths: tokens of the batch's prompts and targets.
        precision: of the backbone.

    Raises:
        UnmeasuredError: if the process fails.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    given = json.dumps({"name": name, "decoder": decoder, "named": named, "lengths": list(lengths), "precision": precision})
    command = [sys.executable, "-m", "benchmarks.decoder_memory", given]
    environment["OMP_NUM_THREADS"] = SETTINGS["OMP_NUM_THREADS"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        raise UnmeasuredError(f"a step of {name}: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


def measured(name: str, *, decoder: str, named: bool, lengths: Sequence[tuple[int, int]], precision: Precision) -> int:
    """Bytes of a second step, in this process; arguments as in `step_memory`."""
    torch.set_num_threads(1)
    before = _resident("VmRSS")
    model = new_decoder(DECODERS[decoder], PRECISIONS[precision], folder=named_folder() if named else None)
    batch = batch_of(samples_of([(inputs, targets) for inputs, targets in lengths], model.config.vocab_size))
    makers: dict[str, Callable[[], Trainer]] = {
        "MHR": lambda: causal_ours(model, heads=HEADS, rows=len(lengths), precision=precision).trainer(always(batch)),
        "peft LoRA": lambda: causal_lora(model).trainer(always(batch)),
        "peft LoRA, all logits": lambda: causal_lora(model, all_logits=True).trainer(always(batch)),
    }
    step = makers[name]()
    step()
    FORGET.write_text("5", encoding="ascii")  # the peak until now, which loading has made
    step()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * KB


if __name__ == "__main__":
    quieten()
    sys.stdout.write(f"{measured(**json.loads(sys.argv[1]))}\n")
