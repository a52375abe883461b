"""Options that several commands share, and how they become parameters."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts import Project
from mhrctl.errors import ParamsError
from mhrctl.methods import METHODS, method
from mhrctl.params import Cell, CellParams, Params, load_params, resolve_cell

if TYPE_CHECKING:
    from accelerate import Accelerator

ProjectOption = Annotated[
    Path,
    typer.Option("--project", "-C", help="Folder that holds params.yaml.", envvar="MHRCTL_PROJECT", show_default=False),
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override params.yaml; repeatable.")]
MethodOption = Annotated[str | None, typer.Option("--method", "-m", help=f"One of: {', '.join(METHODS)}.")]
HeadsOption = Annotated[int | None, typer.Option("--heads", help="Routing heads, for mhr and its variants.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the cell. [default: the grid's first]")]
CellOption = Annotated[
    str | None, typer.Option("--cell", help="A cell of the synced grid by name, in place of the options above.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="`auto` (what accelerate finds) or `cpu`.", envvar="MHRCTL_DEVICE")]


def open_project(folder: Path, sets: list[str]) -> tuple[Project, Params]:
    """Find a project and read its params.yaml."""
    project = Project(folder)
    return project, load_params(project.params, sets)


def chosen_cell(
    project_folder: Path,
    sets: list[str],
    method_name: str | None,
    heads: int | None,
    seed: int | None,
    cell: str | None,
) -> tuple[Project, CellParams]:
    """Resolve the cell that the options name, from params.yaml or, for `--cell`, from its synced file."""
    if cell is not None:
        from mhrctl.grid import read_cell

        if sets or method_name or heads or seed is not None:
            raise ParamsError("--cell stands for all settings of a cell; leave out --method, --heads, --seed and --set")
        project = Project(project_folder)
        return project, read_cell(project, cell)
    project, params = open_project(project_folder, sets)
    if method_name is None:
        raise ParamsError(f"name the cell with --method (one of: {', '.join(METHODS)}) or --cell")
    row = method(method_name)
    if heads is None:
        axes = params.grid.methods.get(method_name) or params.grid.methods.get(row.pretrain)
        if row.multi_head and not (axes and axes.heads):
            raise ParamsError(f"--method {method_name} needs --heads")
        heads = axes.heads[0] if row.multi_head and axes else 1
    seed = params.grid.seeds[0] if seed is None else seed
    named = Cell(method=method_name, heads=heads, seed=seed, pretrain_seed=params.grid.pretrain_seed)
    return project, resolve_cell(params, named)


def open_accelerator(device: str, *, many_processes: bool = False) -> Accelerator:
    """Ask accelerate for the device, and quieten the libraries that report loading and generation.

    Args:
        device: `auto` or `cpu`.
        many_processes: whether the command can share its work between the processes of `accelerate launch`.
    """
    if device not in {"auto", "cpu"}:
        raise ParamsError(f"--device {device}: choose `auto` or `cpu` (CUDA_VISIBLE_DEVICES picks a GPU)")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from accelerate import Accelerator
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1 and not many_processes:
        raise ParamsError(f"{accelerator.num_processes} processes: only `mhrctl pretrain` runs in more than one")
    return accelerator
