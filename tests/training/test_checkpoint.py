"""Checkpoints: what comes back, for which training, and where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from mhrctl.config.params import PretrainParams
from mhrctl.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from mhrctl.training.optimizers import make_optimizer

Name = Literal["adamw", "adafactor"]


def training(name: Name, seed: int) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(seed)
    parameters = {"bank.0": nn.Parameter(torch.randn(1, 2, 3, 4)), "routing": nn.Parameter(torch.randn(1, 2, 5))}
    settings = PretrainParams(steps=9, batch_size=1, optimizer=name)
    return parameters, make_optimizer(settings, skills=[parameters["bank.0"]], routing=[parameters["routing"]])


def step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_training_goes_on_to_the_same_bits(tmp_path: Path, name: Name) -> None:
    path, log = tmp_path / "scratch" / "c.safetensors", [[2, 0.5], [4, 0.25]]
    parameters, optimizer = training(name, 0)
    for number in range(3):
        step(parameters, optimizer, number)
    save_checkpoint(path, step=3, key="k", parameters=parameters, optimizer=optimizer, log=log)
    step(parameters, optimizer, 3)
    resumed, other = training(name, 1)
    assert load_checkpoint(path, key="k", parameters=resumed, optimizer=other) == (3, log)
    step(resumed, other, 3)
    for each, parameter in parameters.items():
        assert torch.equal(resumed[each], parameter)
    assert [file.name for file in path.parent.iterdir()] == ["c.safetensors"]


def test_another_training_begins_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    parameters, optimizer = training("adamw", 0)
    step(parameters, optimizer, 0)
    save_checkpoint(path, step=1, key="k", parameters=parameters, optimizer=optimizer, log=[])
    resumed, other = training("adamw", 1)
    before = {name: parameter.clone() for name, parameter in resumed.items()}
    assert load_checkpoint(path, key="another", parameters=resumed, optimizer=other) == (0, [])
    assert load_checkpoint(tmp_path / "none", key="k", parameters=resumed, optimizer=other) == (0, [])
    assert all(torch.equal(resumed[name], before[name]) for name in resumed)
    assert not other.state


def test_parts_of_a_cell_have_files_of_their_own() -> None:
    assert checkpoint_path(Path("scratch"), "lora-s0") == Path("scratch/pretrain-lora-s0.safetensors")
    assert checkpoint_path(Path("scratch"), "soup-s0", 0) == Path("scratch/pretrain-soup-s0-part0.safetensors")
