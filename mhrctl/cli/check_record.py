"""`mhrctl check --json` has these parts: the settings of a cell, the sizes of a project, and what a cell takes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.resolve import CELL_SECTIONS, Settings, resolve_cell, sources
from mhrctl.config.sections import OptimisationParams
from mhrctl.tools.estimate import FP32, Estimate, Shape
from mhrctl.tools.operations import Suite


def settings_record(settings: Settings, cell: Cell) -> list[dict[str, Any]]:
    """Return every setting of a cell, and where it comes from."""
    resolved = resolve_cell(settings, cell)
    return [
        {"section": section, "key": key, "value": value, "from": origin.get(key, "default")}
        for section in CELL_SECTIONS
        for origin in [sources(settings, cell, section)]
        for key, value in getattr(resolved, section).model_dump().items()
    ]


def sizes_record(suite: Suite | None, shape: Shape | None, estimates: Iterable[Estimate], where: Project) -> dict[str, Any]:
    """Return the sizes of suite, backbone and outputs; null for what is not known.

    Args:
        suite: if it has been counted.
        shape: of the backbone, if that is known.
        estimates: of all cells, some of which share outputs.
        where: the project.
    """
    outputs: dict[tuple[str, str], int] = {}
    checkpoints: list[int] = []
    for each in estimates:
        outputs.update(each.outputs)
        checkpoints.append(each.checkpoint)
    return {
        "tasks": suite and {"training": suite.tasks.training, "test": suite.tasks.test},
        "backbone": shape and {"weights": shape.weights, "bytes": shape.size(FP32)},
        "disk": {
            "needed": sum(outputs.values()) if outputs else None,
            "checkpoints": max(checkpoints, default=None),
            "free": shutil.disk_usage(where.root).free,
        },
    }


def cell_record(each: CellParams, takes: Estimate | None, where: Project) -> dict[str, Any]:
    """Return what a cell trains, takes in bytes, and whether it has scores."""
    cell = each.cell
    return {
        "cell": cell.name,
        "starts_from": cell.origin[0],
        "pretrain": _steps(each.pretrain),
        "adapt": None if cell.extra_steps else _steps(each.adapt),
        "disk": takes and takes.disk,
        "memory": takes and takes.memory,
        "scored": where.scores(cell.name).exists(),
    }


def _steps(params: OptimisationParams) -> dict[str, int | None]:
    return {"steps": params.steps, "examples_a_step": params.batch_size * params.accumulation}
