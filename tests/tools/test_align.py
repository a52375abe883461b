"""The plain function of `mhrctl align`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.analysis.alignment import Alignment, gradient_alignment, task_batches
from mhrctl.config.cells import Cell
from mhrctl.config.params import PretrainParams
from mhrctl.data.examples import Examples
from mhrctl.errors import ArtifactError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach
from mhrctl.models.backbones import load_backbone
from mhrctl.tools.align import Point, align


def measured(project: Path, method: str, at: Point, out: Path) -> Alignment:
    heads = 4 if method == "mhr" else 1
    card = json.loads((project / f"data/pretrain/{method}{'-h4' if heads > 1 else ''}-s0/card.json").read_text())
    return align(
        Cell(method=method, heads=heads),
        PretrainParams.model_validate(card["params"]["pretrain"]),
        at=at,
        prepared=project / "data/prepare",
        backbone=project / "data/backbone",
        pretrained=project / f"data/pretrain/{method}{'-h4' if heads > 1 else ''}-s0",
        scratch=project / "data/scratch",
        out=out,
        tasks=3,
        examples=4,
        device=torch.device("cpu"),
    )


def test_the_end_is_measured_on_what_was_trained(walked: Path, tmp_path: Path) -> None:
    ours = measured(walked, "mhr", "end", tmp_path / "end.json")
    backbone, _ = load_backbone(walked / "data/backbone")
    adapter = load_adapter(walked / "data/pretrain/mhr-h4-s0/adapters.safetensors")
    attach(backbone, adapter)
    examples = Examples.read(walked / "data/prepare/training_tasks.parquet")
    batches = task_batches(examples, tasks=3, size=4, seed=0, pad=backbone.config.pad_token_id)
    assert gradient_alignment(AdaptedModel(backbone, adapter), batches) == ours
    record = json.loads((tmp_path / "end.json").read_text())
    assert (record["at"], record["step"], record["tasks"]) == ("end", 4, list(batches))
    assert record["shared"]["overall"] == round(ours.shared.overall, 4)


def test_the_start_is_the_adapter_before_training(walked: Path, tmp_path: Path) -> None:
    ours = measured(walked, "lora", "start", tmp_path / "start.json")
    assert ours.shared == ours.composed
    assert ours != measured(walked, "lora", "end", tmp_path / "end.json")
    assert json.loads((tmp_path / "start.json").read_text())["step"] == 0


def test_without_a_checkpoint_nothing_is_written(walked: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run in progress of lora-s0"):
        measured(walked, "lora", "checkpoint", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
