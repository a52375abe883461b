"""A killed training goes on from a checkpoint to the same result. Checkpoints are safetensors, no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mhrctl.artifacts.writing import replacing


def save_checkpoint(
    path: Path, *, step: int, key: str, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, log: list[Any]
) -> None:
    """Write a checkpoint in one step.

    Args:
        path: the file.
        step: steps taken.
        key: identifies the training; another key never resumes from this file.
        parameters: what is trained, by name.
        optimizer: over these parameters.
        log: what has been logged, as JSON.
    """
    tensors = {f"parameter/{name}": parameter.detach() for name, parameter in parameters.items()}
    scalars: dict[str, float] = {}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{slot}/{name}"] = value
            else:
                scalars[f"{slot}/{name}"] = value
    facts = {"step": step, "key": key, "scalars": scalars, "log": log}
    with replacing(path) as aside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside, {"facts": json.dumps(facts)})


def load_checkpoint(
    path: Path, *, key: str, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> tuple[int, list[Any]]:
    """Go back to a checkpoint, if there is one for this training.

    Returns:
        The steps taken and the log; (0, []) if there is none.
    """
    if not path.exists():
        return 0, []
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    if facts["key"] != key:
        return 0, []
    tensors = load_file(path)
    fused = {id(parameter) for group in optimizer.param_groups if group.get("fused") for parameter in group["params"]}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    for stored, value in tensors.items():
        kind, _, rest = stored.partition("/")
        if kind == "optimizer":
            slot, _, name = rest.partition("/")
            parameter = parameters[name]
            counter = value.dim() == 0 and id(parameter) not in fused  # stays on the CPU, so that no step waits for it
            optimizer.state[parameter][slot] = value if counter else value.to(parameter.device)
    for stored, number in facts["scalars"].items():
        slot, _, name = stored.partition("/")
        optimizer.state[parameters[name]][slot] = number
    return facts["step"], facts["log"]


def checkpoint_path(scratch: Path, cell: str, part: int | None = None) -> Path:
    """Return where a pre-training in progress leaves its checkpoint.

    Args:
        scratch: the folder of checkpoints.
        cell: its name.
        part: the first task of one of several trainings of the cell, if it has several.
    """
    return scratch / f"pretrain-{cell}{'' if part is None else f'-part{part}'}.safetensors"
