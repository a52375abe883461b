"""The grid of params.yaml is expanded into the files that dvc.yaml reads.

DVC parses a params file once for every stage that names it, so each cell has a small JSON to itself; `index.yaml` lists the
cells of each stage, and `versions.json` the versions of the stages' results. All are generated (`mhrctl grid sync`) and kept
in git, where they also record what a cell was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mhrctl.artifacts.cards import regular
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.reading import reading
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.artifacts.writing import write_text
from mhrctl.config.cells import Cell, CellParams, grid_cells
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import EvaluateParams
from mhrctl.config.resolve import Settings, resolve_cell
from mhrctl.errors import ArtifactError

HEADER = "# Generated from params.yaml by `mhrctl grid sync`; not edited by hand.\n"


def expand(settings: Settings, project: Project) -> dict[Path, str]:
    """Say what every generated file must hold.

    Returns:
        {file: text}: one JSON a cell, the index, and the versions of the stages.
    """
    cells = grid_cells(settings.params)
    files = {
        project.cell_index: HEADER + _yaml({"cells": stage_cells(cells)}),
        project.stage_versions: _json(STAGE_VERSIONS),
    }
    for cell in dict.fromkeys([*(cell.pretrain_cell for cell in cells), *cells]):
        files[project.cell_file(cell.name)] = _json(_changed(resolve_cell(settings, cell)))
    files[project.cell_file(BACKBONE)] = _json({"evaluate": settings.params.evaluate.model_dump(exclude_defaults=True)})
    return files


def _changed(params: CellParams) -> dict[str, Any]:
    """Take a cell's sections without what is at its default.

    So a setting that a later mhrctl adds reruns nothing, and dvc.lock, which DVC parses whole, stays short. A default
    that is changed is a change of results: it raises the stage's version.
    """
    return {name: getattr(params, name).model_dump(exclude_defaults=True) for name in CellParams.model_fields}


def stage_cells(cells: list[Cell]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sort a grid's cells by what must be done for them.

    Returns:
        {stage of dvc.yaml: {cell: what the stage needs to know of it}}.
    """
    adapted = [cell for cell in cells if not cell.extra_steps]
    extra = [cell for cell in cells if cell.extra_steps]
    averaged = [cell.origin[1] for cell in cells if cell.origin[0] == "average"]
    soups = [cell for cell in adapted if cell.row.needs_index]
    return {
        "pretrain": {cell.pretrain_cell.name: {} for cell in cells},
        "average": {cell.name: {} for cell in averaged},
        "pretrain_extra": {cell.name: {"start": _folder(cell.origin)} for cell in extra},
        "index": {"tasks": {}} if soups else {},
        "adapt": {cell.name: {"start": _folder(cell.start)} for cell in adapted if cell not in soups},
        "adapt_soup": {cell.name: {"start": _folder(cell.start)} for cell in soups},
        "evaluate": {cell.name: {"start": _folder(cell.start)} for cell in adapted},
        "evaluate_zero_shot": {cell.name: {"start": _folder(cell.start)} for cell in extra},
    }


def _folder(output: tuple[str, Cell]) -> str:
    """Where an output is, below `data/`."""
    stage, cell = output
    return f"{stage}/{cell.name}"


def sync(settings: Settings, project: Project) -> list[str]:
    """Write the generated files and remove those of cells that left the grid.

    Returns:
        What changed, one line a file.
    """
    wanted = expand(settings, project)
    changes = differences(wanted, project)
    for path in _stale(wanted, project):
        path.unlink()
    for path, text in wanted.items():
        if not path.exists() or _text(path) != text:
            write_text(path, text, durable=False)  # `--check` compares them with params.yaml before each use
    return changes


def differences(wanted: Mapping[Path, str], project: Project) -> list[str]:
    """Say how the generated files differ from what they must hold, one line a file."""
    lines = []
    for path, text in wanted.items():
        if not path.exists():
            lines.append(f"new      {path.relative_to(project.root)}")
        elif _text(path) != text:
            lines.append(f"changed  {path.relative_to(project.root)}")
    return lines + [f"removed  {path.relative_to(project.root)}" for path in _stale(wanted, project)]


def require_in_step(settings: Settings, project: Project) -> None:
    """Refuse a project whose generated files are of other parameters.

    Raises:
        ArtifactError: if a generated file differs from what it must hold.
    """
    if changes := differences(expand(settings, project), project):
        raise ArtifactError(
            f"{project.cell_index.parent}: {len(changes)} files not in step with params.yaml; run `mhrctl grid sync` first"
        )


def read_cell(project: Project, name: str) -> CellParams:
    """Read the resolved parameters of a cell, as DVC sees them.

    Raises:
        ArtifactError: if the grid has no such cell or its file is broken.
    """
    path = project.cell_file(name)
    try:
        return CellParams.model_validate_json(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such cell; add it to `grid` in params.yaml and run `mhrctl grid sync`") from None
    except (OSError, ValueError):
        raise ArtifactError(f"{path}: not as this version writes it; run `mhrctl grid sync`") from None


def read_bare(project: Project) -> EvaluateParams:
    """Read how the bare backbone is evaluated, as DVC sees it.

    Raises:
        ArtifactError: if the grid was never synced.
    """
    path = project.cell_file(BACKBONE)
    with reading(path, again="mhrctl grid sync"):
        return EvaluateParams.model_validate(json.loads(path.read_bytes())["evaluate"])


def _text(path: Path) -> str | None:
    """What a generated file holds; None for what no text can be read from."""
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _stale(wanted: Mapping[Path, str], project: Project) -> list[Path]:
    return sorted(path for path in project.cell_index.parent.glob("*.json") if path not in wanted)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"


def _yaml(value: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    YAML().dump(value, stream)
    return stream.getvalue()
