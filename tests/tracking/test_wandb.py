"""What Weights & Biases keeps of a training offline, in the file that `wandb sync` would send."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.offline import LOSSES, NAME, tracked

pytest.importorskip("wandb", reason="wandb is not installed")


BLOCK = 32768
HEADER = struct.Struct("<IHB")
"""Of a piece of a record: its check sum, its length, and whether it is whole (1), the first, a middle or the last (2, 3, 4)."""


def records(file: Path) -> list[Any]:
    """The records of a run's file, which has LevelDB's log format behind a header of its own of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole, read = file.read_bytes(), 7, b"", []
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        whole += content[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            read.append(record)
            whole = b""
    return read


def runs(project: Path) -> list[Path]:
    return sorted((project / "data/log/tracking/wandb").glob("offline-run-*/run-*.wandb"))


def losses(file: Path) -> list[int]:
    """The steps that have a loss."""
    histories = [record.history for record in records(file) if record.WhichOneof("record_type") == "history"]
    values = [{(item.key or "/".join(item.nested_key)): item.value_json for item in each.item} for each in histories]
    return [int(row["step"]) for row in values if "loss" in row]


def test_a_killed_training_goes_on_in_its_run_and_another_begins_its_own(copy: Path) -> None:
    tracked(copy, "wandb", killed=True)
    tracked(copy, "wandb")
    first, second = runs(copy)
    assert first.name == second.name  # which has the identifier of the run
    assert losses(first) + losses(second) == LOSSES
    run = next(record.run for record in records(second) if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("project", NAME, "lora", "pretrain")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["pretrain.lr"] == 0.001
    assert len(config["key"]) == 64

    tracked(copy, "wandb")
    assert len({path.name for path in runs(copy)}) == 2
