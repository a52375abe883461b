"""The grid of params.yaml is expanded into the files that dvc.yaml reads.

DVC parses a params file once for every stage that names it, so each cell has a small JSON to itself; `index.yaml` lists the
cells of each stage, and `versions.json` the versions of the stages' results. All are generated (`mhrctl grid sync`) and kept
in git, where they also record what a cell was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from mhrctl.artifacts.inputs import OPTIONAL
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.artifacts.writing import write_text
from mhrctl.config.cells import LOWERED, NAME, Cell, CellParams, Output, grid_cells, reads_index
from mhrctl.config.complaints import complaint
from mhrctl.config.fields import Closed
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import Params
from mhrctl.config.reading import read_text, shown
from mhrctl.config.resolve import Settings, resolve_cell
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import ArtifactError, MhrctlError, ParamsError, counted
from mhrctl.projects.pipeline import optional_stages

HEADER = "# Generated from params.yaml by `mhrctl grid sync`; not edited by hand.\n"


def expand(settings: Settings, project: Project) -> dict[Path, str]:
    """Say what every generated file must hold.

    Returns:
        {file: text}: one JSON a cell, the index, and the versions of the stages.
    """
    cells = grid_cells(settings.params)
    resolved = [resolve_cell(settings, cell) for cell in dict.fromkeys([*(cell.pretrain_cell for cell in cells), *cells])]
    files = {
        project.cell_index: HEADER + _yaml({"cells": all_stage_cells(resolved, settings.params)}),
        project.stage_versions: _json(STAGE_VERSIONS),
        project.optional_sections: _json(_optional(settings.params)),
    }
    files |= {project.cell_file(each.cell.name): _json(_changed(each)) for each in resolved}
    files[project.cell_file(BACKBONE)] = _json({"evaluate": settings.params.evaluate.model_dump(exclude_defaults=True)})
    return files


def _optional(params: Params) -> dict[str, Any]:
    """Take what params.yaml may leave out, without what is at its default."""
    values = {key: getattr(params, key) for key in OPTIONAL}
    return {
        key: value.model_dump(exclude_defaults=True) if isinstance(value, Closed) else value for key, value in values.items()
    }


def _changed(params: CellParams) -> dict[str, Any]:
    """Take a cell's sections without what is at its default.

    So a setting that a later mhrctl adds reruns nothing, and dvc.lock, which DVC parses whole, stays short. A default
    that is changed is a change of results: it raises the stage's version.
    """
    return {name: getattr(params, name).model_dump(exclude_defaults=True) for name in CellParams.model_fields}


def stage_cells(cells: list[Cell], by_index: Container[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sort a grid's cells by what must be done for them.

    Args:
        cells: of the grid.
        by_index: names of those whose adaptation asks the index.

    Returns:
        {stage of dvc.yaml: {cell: what the stage needs to know of it}}.
    """
    adapted = [cell for cell in cells if not cell.extra_steps]
    extra = [cell for cell in cells if cell.extra_steps]
    averaged = [cell.origin[1] for cell in cells if cell.origin[0] == "average"]
    soups = [cell for cell in adapted if cell.name in by_index]
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


def all_stage_cells(cells: Sequence[CellParams], params: Params) -> dict[str, dict[str, dict[str, Any]]]:
    """Sort a grid's cells as `stage_cells` does, and set apart those that read outputs which their settings name.

    Args:
        cells: of the grid, with those of their pre-trainings.
        params: that have the grid.
    """
    by_index = {each.cell.name for each in cells if reads_index(each.cell.row, each.adapt)}
    by_stage = stage_cells(grid_cells(params), by_index)
    optional = optional_stages(params)
    by_stage |= {name.replace("-", "_"): {} for name in optional}
    for each in cells if optional else ():
        others: dict[str, tuple[str, Output | None]] = {f"{stage}_over": ("under", each.under(stage)) for stage in LOWERED}
        others["pretrain_pool"] = "pool", each.pool()
        for apart, (place, output) in others.items():
            stage = apart.partition("_")[0]
            if output and each.cell.name in by_stage[stage]:
                by_stage[apart][each.cell.name] = by_stage[stage].pop(each.cell.name) | {place: _folder(output)}
    return by_stage


def named_outputs(settings: Settings) -> list[Output]:
    """Return the outputs that settings of the grid name: what lies under adapters, and pools."""
    cells = grid_cells(settings.params) if optional_stages(settings.params) else []
    return [output for cell in cells for output in resolve_cell(settings, cell).others()]


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
        if _state(path, text) != "same":
            write_text(path, text, durable=False)  # `--check` compares them with params.yaml before each use
    return changes


def differences(wanted: Mapping[Path, str], project: Project) -> list[str]:
    """Say how the generated files differ from what they must hold, one line a file."""
    lines = []
    for path, text in wanted.items():
        if (state := _state(path, text)) != "same":
            lines.append(f"{state:<8} {path.relative_to(project.root)}")
    return lines + [f"removed  {path.relative_to(project.root)}" for path in _stale(wanted, project)]


def require_in_step(settings: Settings, project: Project) -> None:
    """Refuse a project whose generated files are out of date.

    Raises:
        ArtifactError: if a generated file differs from what it must hold.
    """
    if changes := differences(expand(settings, project), project):
        raise ArtifactError(out_of_date(changes, project))


def out_of_date(changes: Sequence[str], project: Project) -> str:
    """Say in a line why data/cells is not what it must be, and what to do.

    Args:
        changes: of `differences`.
        project: whose data/cells it is.
    """
    if not project.cell_index.exists():
        what = "is not written yet"
    elif all(line.endswith(project.stage_versions.name) for line in changes):
        what = "mhrctl is another version than the one that wrote it"
    else:
        what = f"params.yaml has changed ({counted(len(changes), 'file')})"
    return f"{project.cell_index.parent}: {what}; run `mhrctl grid sync`"


def read_cell(project: Project, name: str) -> CellParams:
    """Read the resolved parameters of a cell, as DVC sees them.

    Raises:
        ArtifactError: if the grid has no such cell or its file is broken.
    """
    if not NAME.fullmatch(name):  # which could lead out of data/cells
        raise ParamsError(f"--cell {shown(name)}: no name of a cell, such as mhr-h8-s0; `mhrctl check` lists them")
    path = project.cell_file(name)
    if not path.exists():
        raise ArtifactError(f"{path}: no such cell; add it to `grid` in params.yaml and run `mhrctl grid sync`")
    params = _read(path, CellParams)
    if params.cell.name != name:  # DVC would take what it writes for this cell's
        raise ArtifactError(f"{path}: is of the cell {params.cell.name} by what it says; run `mhrctl grid sync`")
    return params


def read_bare(project: Project) -> EvaluateParams:
    """Read how the bare backbone is evaluated, as DVC sees it.

    Raises:
        ArtifactError: if the grid was never synced.
    """
    path = project.cell_file(BACKBONE)
    if not path.exists():
        raise ArtifactError(f"{path}: is missing; run `mhrctl grid sync`")
    return _read(path, _Bare).evaluate


class _Bare(Closed):
    """The file of the bare backbone has one section."""

    evaluate: EvaluateParams


File = TypeVar("File", bound=Closed)


def _read(path: Path, model: type[File]) -> File:
    try:
        return model.model_validate_json(read_text(path))
    except (ValueError, MhrctlError) as error:
        what = complaint(error, model)[1] if isinstance(error, ValidationError) else str(error).removeprefix(f"{path}: ")
        raise ArtifactError(f"{path}: not as this version writes it; run `mhrctl grid sync` ({what})") from None


def _state(path: Path, text: str) -> Literal["new", "changed", "same"]:
    """How a generated file differs from what it must hold; a broken one is changed, whatever it is."""
    if not path.exists():
        return "new"
    try:
        return "same" if read_text(path, most=2**26) == text else "changed"
    except ParamsError:
        return "changed"


def _stale(wanted: Mapping[Path, str], project: Project) -> list[Path]:
    """The files of cells that left the grid; files of any other name are the user's."""
    files = project.cell_index.parent.glob("*.json")
    return sorted(path for path in files if path not in wanted and NAME.fullmatch(path.stem) and not path.is_dir())


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"


def _yaml(value: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    YAML().dump(value, stream)
    return stream.getvalue()
