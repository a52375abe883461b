"""The plain function of `mhrctl align`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.analysis.alignment import Alignment, gradient_alignment, task_batches
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.examples import Examples
from mhrctl.errors import ArtifactError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach
from mhrctl.models.backbones import load_backbone
from mhrctl.tools.align import Point, align


def measured(project: Path, method: str, at: Point) -> tuple[Alignment, dict[str, Any]]:
    """The alignment of a cell, and the record of it that was written."""
    cell = Cell(method=method, heads=4 if method == "mhr" else 1)
    card = json.loads((project / f"data/pretrain/{cell.name}/card.json").read_text())
    alignment, out = align(
        cell,
        PretrainParams.model_validate(card["params"]["pretrain"]),
        at=at,
        project=Project(project),
        tasks=3,
        examples=4,
        device=torch.device("cpu"),
    )
    return alignment, json.loads(out.read_text())


def test_the_end_is_measured_on_what_was_trained(copy: Path) -> None:
    ours, record = measured(copy, "mhr", "end")
    backbone, _ = load_backbone(copy / "data/backbone")
    adapter = load_adapter(copy / "data/pretrain/mhr-h4-s0/adapters.safetensors")
    attach(backbone, adapter)
    examples = Examples.read(copy / "data/prepare/training_tasks.parquet")
    batches = task_batches(examples, tasks=3, size=4, seed=0)
    assert gradient_alignment(AdaptedModel(backbone, adapter), batches) == ours
    assert (record["at"], record["step"], record["tasks"]) == ("end", 4, list(batches))
    assert record["shared"]["overall"] == round(ours.shared.overall, 4)


def test_the_start_is_the_adapter_before_training(copy: Path) -> None:
    ours, record = measured(copy, "lora", "start")
    assert ours.shared == ours.composed
    assert ours != measured(copy, "lora", "end")[0]
    assert record["step"] == 0
    assert {path.name for path in (copy / "data/metrics/align").iterdir()} == {"lora-s0-start.json", "lora-s0.json"}


def test_without_a_checkpoint_nothing_is_written(copy: Path) -> None:
    with pytest.raises(ArtifactError, match="no run in progress of lora-s0"):
        measured(copy, "lora", "checkpoint")
    assert not (copy / "data/metrics/align").exists()
