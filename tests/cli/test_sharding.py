"""`--shard`, and `accelerate launch --use_fsdp`, which says the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhrctl.cli.sharding import USES, take_sharding
from mhrctl.errors import ParamsError
from mhrctl.models.speed import Sharding
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in (USES, "FSDP_VERSION", "FSDP_RESHARD_AFTER_FORWARD", "FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING"):
        monkeypatch.delenv(name, raising=False)


def launched(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """As `accelerate launch --use_fsdp` sets it."""
    monkeypatch.setenv(USES, "true")
    for name, value in {"version": "2", **settings}.items():
        monkeypatch.setenv(f"FSDP_{name.upper()}", value)


def test_weights_are_whole_unless_they_are_to_be_divided() -> None:
    assert take_sharding(shard=False) is None
    assert take_sharding(shard=True) == Sharding()


def test_accelerates_launcher_says_it_too_and_nothing_is_left_for_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch)
    assert take_sharding(shard=False) == Sharding()
    assert USES not in os.environ
    launched(monkeypatch, reshard_after_forward="false", offload_params="true")
    assert take_sharding(shard=True) == Sharding(reshards=False, offloads=True)


def test_a_launch_without_fsdp_divides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USES, "false")
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert take_sharding(shard=False) is None
    assert take_sharding(shard=True) == Sharding()


def test_what_accelerate_would_do_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, version="1")
    with pytest.raises(ParamsError, match=r"^accelerate launch --use_fsdp: version 1 of FSDP; .* \(--fsdp_version 2\)$"):
        take_sharding(shard=False)
    launched(monkeypatch, activation_checkpointing="true")
    with pytest.raises(ParamsError, match=r"fsdp_activation_checkpointing .* --checkpointing"):
        take_sharding(shard=False)


def test_one_process_has_nothing_to_divide(copy: Path, run: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run("pretrain", "-m", "lora", "--shard", "-C", copy) == 2
    assert "--shard: weights are divided among processes, and this is one; start several" in complaint(capsys)
    launched(monkeypatch)
    assert run("pretrain", "-m", "lora", "-C", copy) == 2
    assert "accelerate launch --use_fsdp: weights are divided" in complaint(capsys)
