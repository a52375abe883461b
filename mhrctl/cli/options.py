"""Several commands share these options, which become parameters here."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.provenance import Provenance
from mhrctl.cli import display
from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.methods import METHODS, method
from mhrctl.config.params import MAX_SEED, PLAIN
from mhrctl.config.recipes import RECIPES
from mhrctl.config.resolve import Settings, load_params, resolve_cell
from mhrctl.errors import ParamsError
from mhrctl.models.speed import OFF

if TYPE_CHECKING:
    from accelerate import Accelerator

HERE = Path()
"""This is the project unless `--project` names another."""
ProjectOption = Annotated[
    Path,
    typer.Option("--project", "-C", help="Folder that holds params.yaml.", envvar="MHRCTL_PROJECT", show_default=False),
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override params.yaml; repeatable.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help=f"Settings of the paper over those of params.yaml: {', '.join(RECIPES)}.")
]
MethodOption = Annotated[str | None, typer.Option("--method", "-m", help=f"One of: {', '.join(METHODS)}.")]
HeadsOption = Annotated[int | None, typer.Option("--heads", min=1, help="Routing heads, for mhr and its variants.")]
VariantOption = Annotated[str | None, typer.Option("--variant", help="A name of `grid.variants`, such as another layout.")]
ExtraStepsOption = Annotated[
    int | None, typer.Option("--extra-steps", min=1, help="Steps that a single adapter is trained on, on all tasks.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the cell. [default: the grid's first]")
]
CellOption = Annotated[
    str | None, typer.Option("--cell", help="A cell of the synced grid by name, in place of the options above.")
]


def _known_device(device: str) -> str:
    if device not in {"auto", "cpu"}:
        raise ParamsError(f"--device {device}: choose `auto` or `cpu` (CUDA_VISIBLE_DEVICES picks a GPU)")
    return device


DeviceOption = Annotated[
    str,
    typer.Option("--device", help="`auto` (what accelerate finds) or `cpu`.", envvar="MHRCTL_DEVICE", callback=_known_device),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Make the output anew, even if it is up to date.")]
TogetherOption = Annotated[
    int,
    typer.Option(min=1, help="Tasks in one batch, side by side; lower it if memory is short.", envvar="MHRCTL_TOGETHER"),
]
OffOption = Annotated[
    list[str],
    typer.Option(
        "--off",
        metavar="NAME",
        help=f"Switch a speed option off, which changes no result beyond rounding: {', '.join(OFF)}; repeatable.",
        envvar="MHRCTL_OFF",
    ),
]
CheckpointingOption = Annotated[
    bool,
    typer.Option(
        "--checkpointing",
        help="Compute the activations of a block again in backward, which takes longer and less memory.",
        envvar="MHRCTL_CHECKPOINTING",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option("--compile", help="Compile what surrounds the matrix products; pays on a GPU.", envvar="MHRCTL_COMPILE"),
]


def open_project(folder: Path, sets: list[str], recipe: str | None = None) -> tuple[Project, Settings]:
    """Find a project and read its params.yaml."""
    project = Project(folder)
    return project, load_params(project.params, sets, recipe)


def chosen_cell(
    project_folder: Path,
    sets: list[str],
    recipe: str | None,
    cell: str | None,
    method_name: str | None,
    heads: int | None,
    variant: str | None,
    seed: int | None,
    extra_steps: int | None = None,
    *,
    reads: str,
) -> tuple[Project, CellParams]:
    """Resolve the cell that the options name, from params.yaml or, for `--cell`, from its synced file.

    `reads` is the section that the command reads, to which `--set` is held, so that nothing is set in vain.
    """
    if cell is not None:
        from mhrctl.tools.grid import read_cell

        if sets or recipe or method_name or heads or variant or extra_steps or seed is not None:
            raise ParamsError(
                "--cell stands for all settings of a cell; leave out --method, --heads, --variant, --extra-steps, --seed,"
                " --recipe and --set"
            )
        project = Project(project_folder)
        return project, read_cell(project, cell)
    project, settings = open_project(project_folder, sets, recipe)
    if vain := [text for text in sets if text.split(".")[0] not in (reads, "grid")]:
        raise ParamsError(f"--set {vain[0]}: this command reads the section `{reads}` only; set it where it is read")
    return project, resolve_cell(settings, named_cell(settings, method_name, heads, variant, seed, extra_steps))


def named_cell(
    settings: Settings,
    method_name: str | None,
    heads: int | None = None,
    variant: str | None = None,
    seed: int | None = None,
    extra_steps: int | None = None,
) -> Cell:
    """Name the cell that options describe; what they leave open is the grid's first."""
    grid = settings.params.grid
    if method_name is None:
        raise ParamsError(f"name the cell with --method (one of: {', '.join(METHODS)}) or --cell")
    row = method(method_name)
    if heads is None:
        axes = grid.methods.get(method_name) or grid.methods.get(row.pretrain)
        if row.multi_head and not (axes and axes.heads):
            raise ParamsError(f"--method {method_name} needs --heads")
        heads = axes.heads[0] if row.multi_head and axes else 1
    return Cell(
        method=method_name,
        heads=heads,
        variant=variant or PLAIN,
        seed=grid.seeds[0] if seed is None else seed,
        pretrain_seed=grid.pretrain_seed,
        extra_steps=extra_steps or 0,
    )


def output_of(project: Project, output: tuple[str, Cell]) -> Path:
    """Name the folder of a stage's output for a cell."""
    stage, cell = output
    return project.output(stage, cell.name)


def nothing_to_do(made: Provenance, out: Path, *beside: Path, force: bool) -> bool:
    """Decide whether a stage's output is up to date, and then say so; this comes before anything heavy is imported.

    Processes on one machine see the same files and decide alike; those on several may not, and then the output is made anew.

    Args:
        made: what decides the output.
        out: the output folder.
        beside: what the stage writes elsewhere.
        force: make it anew in any case.
    """
    on_one_machine = launched_processes() == int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if force or not on_one_machine or not made.is_up_to_date(out, *beside):
        return False
    if os.environ.get("RANK", "0") == "0":
        display.done(f"{out} is made already; --force makes it anew")
    return True


def launched_processes() -> int:
    """Count the processes of this command that `torchrun` or `accelerate launch` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def quieten() -> None:
    """Silence what libraries report of loading and generation."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for library in ("accelerate", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)


def open_accelerator(device: str, *, many_processes: bool = False) -> Accelerator:
    """Ask accelerate for the device.

    Args:
        device: `auto` or `cpu`.
        many_processes: whether the command can share its work between the processes of `accelerate launch`.
    """
    quieten()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # which `prepare`, that needs no accelerator, makes use of
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1 and not many_processes:
        raise ParamsError(f"{accelerator.num_processes} processes: only `mhrctl pretrain` runs in more than one")
    return accelerator
