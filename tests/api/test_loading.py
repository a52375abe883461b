"""Cells share backbones where nothing keeps them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from mhrctl.api.loading import SharedBase, load_cell
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError
from mhrctl.training.execution import Execution


def test_a_backbone_is_shared_by_precision(walked: Path, accelerator: Accelerator) -> None:
    params = load_params(walked / "params.yaml").params.evaluate
    shared: dict[Any, SharedBase] = {}

    def loaded(method: str, **more: Any) -> Any:
        settings = params.model_copy(update=more)
        cell = Cell(method=method)
        execution = Execution(accelerator)
        return load_cell(cell, settings, stage="adapt", project=Project(walked), execution=execution, shared=shared)

    first, second, half = loaded("lora"), loaded("poly"), loaded("lora", precision="bf16")
    assert first._lock is second._lock is not half._lock
    assert len(shared) == 2
    assert first._predictor._backbone is second._predictor._backbone
    assert half._predictor._backbone.dtype != first._predictor._backbone.dtype


def test_a_lock_is_let_go_after_an_error(walked: Path, accelerator: Accelerator) -> None:
    params = load_params(walked / "params.yaml").params.evaluate
    shared: dict[Any, SharedBase] = {}
    cell = Cell(method="lora", seed=9)
    with pytest.raises(ArtifactError, match="no finished pretrain output"):
        load_cell(cell, params, stage="adapt", project=Project(walked), execution=Execution(accelerator), shared=shared)
    (base,) = shared.values()
    assert base._lock.acquire(blocking=False)
    base._lock.release()
