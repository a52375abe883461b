"""The shell completes names of cells, tasks, methods, stages and settings; cells of the synced grid go by a part of their name.

What is completed is read from small files of the project, and never complained of: a file that cannot be read offers nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mhrctl.artifacts.names import TASKS, Project
from mhrctl.config.cells import NAME, label_called
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.recipes import RECIPES
from mhrctl.config.sources import SOURCES
from mhrctl.hub import KNOWN, SIZES
from mhrctl.models.speed import OFF
from mhrctl.tracking.table import TRACKERS

VARIABLE = "_MHRCTL_COMPLETE"
"""The shell asks for completion by this variable of the environment."""
Completer = Callable[[str], list[str]]


def is_completing() -> bool:
    """Return whether this process has been asked by a shell what a word can become."""
    return VARIABLE in os.environ


def completer(names: Iterable[str]) -> Completer:
    """Return what completes one of these names."""
    known = list(dict.fromkeys(names))
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


complete_method = completer(METHODS)
complete_recipe = completer(RECIPES)
complete_source = completer(SOURCES)
complete_tracker = completer(TRACKERS)
complete_off = completer(OFF)
complete_size = completer((*(f"t5-{size}" for size in SIZES), *KNOWN))
complete_backbone = completer(KNOWN)
complete_setting = completer(
    f"{section}.{key}="
    for section, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    for key in field.annotation.model_fields
)


def complete_cell(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the cells of the synced grid that begin so."""
    return completer(_synced(_project(ctx)))(incomplete)


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the prepared tasks that begin so."""
    try:
        tasks = json.loads((_project(ctx).output("prepare") / TASKS).read_text(encoding="utf-8"))["tasks"]
        return completer(str(task["name"]) for task in tasks)(incomplete)
    except (OSError, ValueError, LookupError, TypeError):
        return []


def complete_label(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the labels of cells that have scores, which begin so."""
    names = (path.stem for path in sorted(_project(ctx).scores("").parent.glob("*.json")) if NAME.fullmatch(path.stem))
    return completer(name.rpartition("-s")[0] for name in names)(incomplete)


def complete_labels(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what `--compare` takes that begins so: `all`, and labels."""
    return [*completer(["all"])(incomplete), *complete_label(ctx, incomplete)]


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the stages that `mhrctl run` takes, which begin so: `prepare`, `adapt@mhr-h8-s0`.

    Bash takes `adapt@mhr` for the words `adapt`, `@` and `mhr`, unless told otherwise (docs/install.md): it is offered nothing.
    """
    project = _project(ctx)
    stages, cells = _read_yaml(project.root / "dvc.yaml"), _read_yaml(project.cell_index)
    names = list(_mapping(stages.get("stages")))
    by_stage = {key.replace("_", "-"): list(_mapping(of)) for key, of in _mapping(cells.get("cells")).items()}
    if "@" in (ctx.params.get("targets") or []):
        return []
    return completer([*names, *(f"{stage}@{cell}" for stage in names for cell in by_stage.get(stage, ()))])(incomplete)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path)
    except (OSError, ValueError, YAMLError):
        return {}
    return _mapping(content)


def _mapping(content: object) -> dict[str, Any]:
    """What is a mapping by names; nothing of anything else."""
    return content if isinstance(content, dict) and all(isinstance(key, str) for key in content) else {}


def _project(ctx: typer.Context) -> Project:
    return Project(Path(ctx.params.get("project") or os.environ.get("MHRCTL_PROJECT", "")))


def synced_name(project: Project, name: str) -> str:
    """Return the whole name of a cell of the synced grid: `mhr-h8` is its first seed there, `mhr` what there is once.

    Args:
        project: whose data/cells is looked at.
        name: of a cell; one of which nothing there begins so is returned as it is.

    Raises:
        ParamsError: if it is short for several.
    """
    labels: dict[str, str] = {}
    for each in _synced(project):
        labels.setdefault(each.rpartition("-s")[0], each)
    label = label_called(name, labels)
    return labels[label] if label else name


def _synced(project: Project) -> Iterator[str]:
    """The names of the cells that have a file, those of a lower seed first."""
    names = [path.stem for path in project.cell_index.parent.glob("*.json") if NAME.fullmatch(path.stem)]
    return iter(sorted(names, key=lambda name: (name.rpartition("-s")[0], int(name.rpartition("-s")[2]))))
