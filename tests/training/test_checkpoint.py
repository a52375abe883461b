"""Checkpoints: what comes back, for which training, and where they are."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mhrctl.config.sections import PretrainParams
from mhrctl.errors import ArtifactError, DivergedError
from mhrctl.training import checkpoint
from mhrctl.training.checkpoint import (
    DamagedError,
    checkpoint_path,
    checkpoints_of,
    last_checkpoint,
    load_checkpoint,
    previous,
    read_checkpoint,
    save_checkpoint,
)
from mhrctl.training.optimizers import make_optimizer
from mhrctl.training.selection import BestSteps

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


def test_the_best_steps_come_back_with_what_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    parameters, optimizer = training("adamw", 0)
    best = BestSteps(parameters, dtype=torch.float64)

    def save(number: int) -> None:
        step(parameters, optimizer, number)
        save_checkpoint(path, step=number, key="k", parameters=parameters, optimizer=optimizer, log=[], best=best)

    def load(key: str = "k") -> tuple[int, BestSteps]:
        resumed, other = training("adamw", 1)
        again = BestSteps(resumed, dtype=torch.float64)
        return load_checkpoint(path, key=key, parameters=resumed, optimizer=other, best=again)[0], again

    save(1)
    reached, again = load()  # nothing was validated yet
    assert (reached, again.steps, again.scores.tolist()) == (1, [0], [-torch.inf])
    best.record([0], [-0.1234567890123], parameters, rows=[0], step=1)
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    save(2)
    reached, again = load()
    assert (reached, again.steps, again.scores.tolist()) == (2, [1], [-0.1234567890123])
    assert all(torch.equal(again.parameters[name], kept[name]) for name in kept)
    assert not any(torch.equal(parameters[name], kept[name]) for name in kept)
    assert load("another")[1].steps == [0]


def test_a_checkpoint_without_the_best_of_a_layer_fills_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    parameters, optimizer = training("adamw", 0)
    best = BestSteps(parameters)
    best.record([0], [1.0], parameters, rows=[0], step=1)
    save_checkpoint(path, step=1, key="k", parameters=parameters, optimizer=optimizer, log=[], best=best)
    kept = read_checkpoint(path)
    assert kept is not None
    lacking = replace(kept, tensors={name: tensor for name, tensor in kept.tensors.items() if name != "best/routing"})
    resumed, _ = training("adamw", 1)
    with pytest.raises(DamagedError, match=r"does not fit \(best/routing is missing\)"):
        lacking.fill(resumed, BestSteps(resumed))
    assert all(torch.equal(resumed[name], other) for name, other in training("adamw", 1)[0].items())


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


Damage = Callable[[Path], object]


def two_checkpoints(folder: Path) -> tuple[Path, dict[int, dict[str, torch.Tensor]]]:
    """Checkpoints of the steps 2 and 4 of a training; returns the file of the last, and the parameters of both."""
    path, values = folder / "c.safetensors", {}
    parameters, optimizer = training("adamw", 0)
    for number in range(1, 5):
        step(parameters, optimizer, number)
        if number % 2 == 0:
            save_checkpoint(path, step=number, key="k", parameters=parameters, optimizer=optimizer, log=[[number, 0.5]])
            values[number] = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return path, values


def loaded(path: Path, key: str = "k") -> tuple[int, dict[str, nn.Parameter], list[str]]:
    warnings: list[str] = []
    parameters, optimizer = training("adamw", 1)
    reached, log = load_checkpoint(path, key=key, parameters=parameters, optimizer=optimizer, warn=warnings.append)
    assert log == ([[reached, 0.5]] if reached else [])
    assert bool(optimizer.state) is (reached > 0)
    return reached, parameters, warnings


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> None:
    """Change what a checkpoint holds, so that it is a whole safetensors file still."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def facts(metadata: dict[str, str], **changed: Any) -> None:
    metadata["facts"] = json.dumps(json.loads(metadata["facts"]) | changed)


def in_place_of(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGES: dict[str, Damage] = {
    "a bit of the last tensor": lambda path: flip(path, -1),
    "a bit of the header": lambda path: flip(path, 40),
    "its length": lambda path: flip(path, 0),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "other bytes": lambda path: path.write_bytes(b"no checkpoint"),
    "a tensor less": lambda path: rewrite(path, lambda tensors, _: tensors.__delitem__("parameter/routing")),
    "a moment less": lambda path: rewrite(path, lambda tensors, _: tensors.__delitem__("optimizer/exp_avg/routing")),
    "another shape": lambda path: rewrite(
        path, lambda t, _: t.update({"parameter/bank.0": t["parameter/bank.0"][..., :2].clone()})
    ),
    "another dtype": lambda path: rewrite(path, lambda t, _: t.update({"parameter/routing": t["parameter/routing"].double()})),
    "another step": lambda path: rewrite(path, lambda _, metadata: facts(metadata, step=3)),
    "another log": lambda path: rewrite(path, lambda _, metadata: facts(metadata, log=[[9, 9.0]])),
    "facts that are no JSON": lambda path: rewrite(path, lambda _, metadata: metadata.update(facts="{")),
    "no facts": lambda path: rewrite(path, lambda _, metadata: metadata.__delitem__("facts")),
    "an older version": lambda path: rewrite(path, lambda _, metadata: metadata.__delitem__("sha256")),
    "a folder": lambda path: in_place_of(path, Path.mkdir),
    "a folder with a file": lambda path: in_place_of(path, lambda p: (p / "x" / "y").mkdir(parents=True)),
    "a FIFO": lambda path: in_place_of(path, os.mkfifo),
    "a link to nothing": lambda path: in_place_of(path, lambda p: p.symlink_to("nothing")),
    "a link to itself": lambda path: in_place_of(path, lambda p: p.symlink_to(p.name)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_set_aside_and_the_one_before_it_gone_back_to(tmp_path: Path, damage: Damage) -> None:
    path, values = two_checkpoints(tmp_path)
    damage(path)
    reached, parameters, warnings = loaded(path)
    assert reached == 2
    assert all(torch.equal(parameters[name], values[2][name]) for name in parameters)
    (warning,) = warnings
    assert warning.startswith(f"{path}: ")
    assert warning.endswith(", and was set aside as c.safetensors.1.damaged; the training goes on from step 2")
    assert "\n" not in warning
    assert {file.name for file in tmp_path.iterdir()} == {"c.previous.safetensors", "c.safetensors.1.damaged"}
    assert loaded(path)[2] == []  # it is said once


def test_with_both_damaged_a_training_starts_anew_and_nothing_is_deleted(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    flip(path, -1)
    flip(previous(path), -9)
    (tmp_path / "c.safetensors.1.damaged").write_text("of an earlier time")
    reached, parameters, warnings = loaded(path)
    fresh, _ = training("adamw", 1)
    assert reached == 0
    assert all(torch.equal(parameters[name], fresh[name]) for name in fresh)
    assert [warning.rpartition("; ")[2] for warning in warnings] == ["the training starts again"] * 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "c.previous.safetensors.1.damaged",
        "c.safetensors.1.damaged",
        "c.safetensors.2.damaged",
    ]
    assert (tmp_path / "c.safetensors.1.damaged").read_text() == "of an earlier time"


def test_whatever_bit_is_flipped_the_values_are_those_that_were_saved(tmp_path: Path) -> None:
    path, values = two_checkpoints(tmp_path)
    whole, random_ = path.read_bytes(), random.Random(0)
    unseen = 0
    for place in [*range(0, 700, 7), *random_.sample(range(len(whole)), 100)]:
        path.write_bytes(whole)
        flip(path, place, random_.randrange(8))
        try:
            kept = read_checkpoint(path)
        except checkpoint.DamagedError:
            kept = None
        if kept is not None:  # it may be of no importance, such as the order of the header
            unseen += 1
            assert kept.step == 4
            assert all(torch.equal(kept.tensors[f"parameter/{name}"], values[4][name]) for name in values[4])
    assert unseen == 0


def test_the_last_two_are_kept_and_hold_what_they_held(tmp_path: Path) -> None:
    path, values = two_checkpoints(tmp_path)
    for place, number in ((path, 4), (previous(path), 2)):
        kept = read_checkpoint(place)
        assert kept is not None
        assert (kept.step, kept.key, kept.log) == (number, "k", [[number, 0.5]])
        assert all(torch.equal(kept.tensors[f"parameter/{name}"], values[number][name]) for name in values[number])
    assert len(list(tmp_path.iterdir())) == 2


def test_killed_at_any_moment_of_a_save_there_is_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of a save that changes a name is the last one that is taken."""
    real, calls = Path.replace, [0]

    def killed(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] == allowed + 1:
            raise KeyboardInterrupt
        return real(self, target)

    for allowed, reached in ((0, 4), (1, 4)):
        path, _ = two_checkpoints(tmp_path / str(allowed))
        parameters, optimizer = training("adamw", 0)
        step(parameters, optimizer, 0)
        calls[0] = 0
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "replace", killed)
            save_checkpoint(path, step=6, key="k", parameters=parameters, optimizer=optimizer, log=[[6, 0.5]])
        assert loaded(path)[0] == reached
        assert loaded(path)[2] == []


def test_numbers_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    before = path.read_bytes(), previous(path).read_bytes()
    parameters, optimizer = training("adamw", 0)
    step(parameters, optimizer, 0)
    optimizer.state[parameters["routing"]]["exp_avg_sq"][0, 1, 2] = torch.inf
    with pytest.raises(DivergedError, match=r"^the checkpoint of step 6: optimizer/exp_avg_sq/routing holds NaN or infinity$"):
        save_checkpoint(path, step=6, key="k", parameters=parameters, optimizer=optimizer, log=[])
    assert (path.read_bytes(), previous(path).read_bytes()) == before


def test_a_checkpoint_of_another_training_before_it_is_gone_back_to_by_its_own(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    parameters, optimizer = training("adamw", 0)
    step(parameters, optimizer, 0)
    save_checkpoint(path, step=1, key="other", parameters=parameters, optimizer=optimizer, log=[[1, 0.5]])
    assert loaded(path, "other")[0] == 1
    assert loaded(path, "k")[0] == 4
    assert loaded(path, "third")[0] == 0


def test_one_process_of_several_sets_aside(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    flip(path, -1)
    parameters, optimizer = training("adamw", 1)
    warnings: list[str] = []
    options = {"key": "k", "parameters": parameters, "optimizer": optimizer, "warn": warnings.append}
    assert load_checkpoint(path, **options, set_aside=False)[0] == 2  # type: ignore[arg-type]
    assert path.exists()
    assert warnings == [f"{path}: is damaged (its hash is another); the training goes on from step 2"]


def test_the_last_one_is_looked_up_without_touching_any(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert last_checkpoint(tmp_path / "none") is None
    for expected in (4, 2):
        kept = last_checkpoint(path)
        assert kept is not None
        assert kept.step == expected
        flip(path, -1)
    flip(path, -1)
    flip(path, -2)
    flip(previous(path), -1)
    with pytest.raises(ArtifactError, match=r"c.safetensors: is damaged .*, and there is no checkpoint before it; run"):
        last_checkpoint(path)
    assert {file.name for file in tmp_path.iterdir()} == names


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    path.chmod(0)
    with pytest.raises(ArtifactError, match=r"c.safetensors: the checkpoint cannot be read \(Permission denied\)"):
        loaded(path)
    path.chmod(0o600)
    tmp_path.chmod(0)
    try:
        with pytest.raises(ArtifactError, match=r"cannot be read \(Permission denied\)"):
            loaded(path)
    finally:
        tmp_path.chmod(0o700)


def test_what_cannot_be_opened_or_renamed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = two_checkpoints(tmp_path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        with pytest.raises(ArtifactError, match=r"c.safetensors: the checkpoint cannot be read \(Permission denied\)"):
            loaded(path)
    flip(path, -1)
    monkeypatch.setattr(Path, "rename", denied)
    with pytest.raises(ArtifactError, match=r"c.safetensors: damaged, and cannot be renamed \(Permission denied\)"):
        loaded(path)


def test_all_checkpoints_of_a_cell_are_listed_and_no_others(tmp_path: Path) -> None:
    mine = [
        *("pretrain-mhr-s0.safetensors", "pretrain-mhr-s0.previous.safetensors"),
        *("pretrain-mhr-s0-part0.safetensors", "pretrain-mhr-s0-part16.previous.safetensors"),
    ]
    for name in (
        *mine,
        "pretrain-mhr-s0.safetensors.1.damaged",
        "pretrain-mhr-s01.safetensors",
        "pretrain-lora-s0.safetensors",
    ):
        (tmp_path / name).touch()
    assert sorted(path.name for path in checkpoints_of(tmp_path, "mhr-s0")) == sorted(mine)


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    path, _ = two_checkpoints(tmp_path)
    begun = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from mhrctl.artifacts.placing import partial_of as p; from pathlib import Path; p(Path({str(path)!r})).touch()",
        ],
        check=False,
    )
    assert begun.returncode == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert loaded(path)[0] == 4
    assert len(list(tmp_path.iterdir())) == 2
