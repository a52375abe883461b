"""The shell completes names of cells, methods and recipes, and cells of the synced grid go by a part of their name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import NAME, label_called
from mhrctl.config.methods import METHODS
from mhrctl.config.recipes import RECIPES


def complete_method(incomplete: str) -> list[str]:
    """Return the methods that begin so."""
    return [name for name in METHODS if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that begin so."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_cell(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the cells of the synced grid that begin so."""
    folder = ctx.params.get("project") or os.environ.get("MHRCTL_PROJECT", "")
    return [name for name in _synced(Project(Path(folder))) if name.startswith(incomplete)]


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
