"""The grid of params.yaml, expanded into the files that dvc.yaml reads.

DVC parses a params file once for every stage that names it, so each cell has a small JSON of its own; `index.yaml` lists the
cells of each stage. Both are generated (`mhrctl grid sync`) and kept in git, where they also record what a cell was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mhrctl.artifacts import Project, read_json
from mhrctl.errors import ArtifactError
from mhrctl.methods import BACKBONE
from mhrctl.params import Cell, CellParams, EvaluateParams, Params, grid_cells, resolve_cell

HEADER = "# Generated from params.yaml by `mhrctl grid sync`; not edited by hand.\n"


def expand(params: Params, project: Project) -> dict[Path, str]:
    """Say what every generated file must hold.

    Returns:
        {file: text}: one JSON a cell and the index.
    """
    cells = grid_cells(params)
    pretrained = list(dict.fromkeys(cell.pretrain_cell for cell in cells))
    averaged = [cell for cell in pretrained if any(c.pretrain_cell == cell and c.row.start == "average" for c in cells)]
    index: dict[str, dict[str, dict[str, Any]]] = {
        "pretrain": {cell.name: {} for cell in pretrained},
        "average": {cell.name: {} for cell in averaged},
        "adapt": {cell.name: {"start": start_folder(cell)} for cell in cells},
    }
    files = {project.cell_index: HEADER + _yaml({"cells": index})}
    for cell in dict.fromkeys([*pretrained, *cells]):
        files[project.cell_file(cell.name)] = _json(resolve_cell(params, cell).model_dump())
    files[project.cell_file(BACKBONE)] = _json({"evaluate": params.evaluate.model_dump()})
    return files


def start_folder(cell: Cell) -> str:
    """Where a cell's adaptation starts, below `data/`."""
    return f"{cell.row.start}/{cell.pretrain_cell.name}"


def sync(params: Params, project: Project) -> list[str]:
    """Write the generated files and remove those of cells that left the grid.

    Returns:
        What changed, one line a file.
    """
    wanted = expand(params, project)
    changes = differences(wanted, project)
    for path in _stale(wanted, project):
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return changes


def differences(wanted: Mapping[Path, str], project: Project) -> list[str]:
    """Say how the generated files differ from what they must hold, one line a file."""
    lines = []
    for path, text in wanted.items():
        if not path.exists():
            lines.append(f"new      {path.relative_to(project.root)}")
        elif path.read_text() != text:
            lines.append(f"changed  {path.relative_to(project.root)}")
    return lines + [f"removed  {path.relative_to(project.root)}" for path in _stale(wanted, project)]


def read_cell(project: Project, name: str) -> CellParams:
    """Read the resolved parameters of a cell, as DVC sees them.

    Raises:
        ArtifactError: if the grid has no such cell or its file is broken.
    """
    path = project.cell_file(name)
    try:
        return CellParams.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such cell; add it to `grid` in params.yaml and run `mhrctl grid sync`") from None
    except ValueError:
        raise ArtifactError(f"{path}: not as this version writes it; run `mhrctl grid sync`") from None


def read_bare(project: Project) -> EvaluateParams:
    """Read how the bare backbone is evaluated, as DVC sees it.

    Raises:
        ArtifactError: if the grid was never synced.
    """
    path = project.cell_file(BACKBONE)
    if not path.exists():
        raise ArtifactError(f"{path}: no such file; run `mhrctl grid sync`")
    return EvaluateParams.model_validate(read_json(path)["evaluate"])


def _stale(wanted: Mapping[Path, str], project: Project) -> list[Path]:
    return sorted(path for path in project.cell_index.parent.glob("*.json") if path not in wanted)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"


def _yaml(value: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    YAML().dump(value, stream)
    return stream.getvalue()
