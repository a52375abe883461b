"""Several commands share these options, which become parameters here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.provenance import Provenance
from mhrctl.cli import display
from mhrctl.cli.completion import complete_cell, complete_method, complete_recipe, synced_name
from mhrctl.cli.help import RUNNING, SETTINGS, SPEED, WHICH_CELL
from mhrctl.cli.threads import DEFAULT, limit_threads, prepare_threads
from mhrctl.config.cells import Cell, CellParams, cell_called, cell_of
from mhrctl.config.fields import MAX_COUNT, MAX_SEED, MAX_WIDTH
from mhrctl.config.overrides import require_sections
from mhrctl.config.params import Params
from mhrctl.config.recipes import RECIPES
from mhrctl.config.recipes import recipe as recipe_of
from mhrctl.config.resolve import Settings, load_params, require_read, resolve_cell
from mhrctl.errors import ParamsError, listed
from mhrctl.models.speed import DEVICE_MAPS, OFF
from mhrctl.progress import Recorder
from mhrctl.running.machine import THREADS
from mhrctl.tracking.backend import Subject
from mhrctl.tracking.recording import recording
from mhrctl.tracking.table import TRACKERS, require_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_THREADS = 1024
HERE = Path()
"""This is the project unless `--project` names another."""
ProjectOption = Annotated[
    Path,
    typer.Option(
        "--project",
        "-C",
        metavar="FOLDER",
        help="Folder that holds params.yaml. [default: here]",
        envvar="MHRCTL_PROJECT",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Use this value instead of that in params.yaml; repeatable.",
        rich_help_panel=SETTINGS,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help=f"Use the paper's settings (they override params.yaml): {', '.join(RECIPES)}.",
        autocompletion=complete_recipe,
        rich_help_panel=SETTINGS,
    ),
]
CellArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CELL",
        help="Name of the cell: `mhr-h8-s0`, or `mhr-h8` for the grid's first seed, or `mhr` if the grid has it once."
        " Settings are those of params.yaml.",
        autocompletion=complete_cell,
        show_default=False,
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        "-m",
        help="Method, in place of a name: lora, poly, mhr, mhr_mu, ... (docs/methods.md).",
        autocompletion=complete_method,
        rich_help_panel=WHICH_CELL,
    ),
]
HeadsOption = Annotated[
    int | None,
    typer.Option(
        "--heads",
        min=1,
        max=MAX_WIDTH,
        help="Routings a layer, for mhr and its variants; must divide the layer's width. [default: the grid's first]",
        rich_help_panel=WHICH_CELL,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant", help="Variant of `grid.variants`, such as another layout. [default: plain]", rich_help_panel=WHICH_CELL
    ),
]
ExtraStepsOption = Annotated[
    int | None,
    typer.Option(
        "--extra-steps",
        min=1,
        max=MAX_COUNT,
        help="Steps of further training on all tasks, of a single adapter (lora, mhr_mu, ...), which is not adapted then.",
        rich_help_panel=WHICH_CELL,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=MAX_SEED, help="Seed of the cell. [default: the grid's first]", rich_help_panel=WHICH_CELL
    ),
]
CellOption = Annotated[
    str | None,
    typer.Option(
        "--cell",
        metavar="CELL",
        help="Name of the cell, with the settings of its file in data/cells, as DVC runs it.",
        autocompletion=complete_cell,
        rich_help_panel=WHICH_CELL,
    ),
]
NamedCellOption = Annotated[
    str | None,
    typer.Option("--cell", metavar="CELL", help="Name of the cell.", autocompletion=complete_cell, rich_help_panel=WHICH_CELL),
]
"""As `CellOption`, of a command that reads params.yaml alone."""


def _known_device(device: str) -> str:
    if device not in {"auto", "cpu"}:
        raise ParamsError(f"--device {device}: choose `auto` or `cpu` (CUDA_VISIBLE_DEVICES picks a GPU)")
    return device


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="`auto` (a GPU if there is one) or `cpu`.",
        envvar="MHRCTL_DEVICE",
        callback=_known_device,
        rich_help_panel=SPEED,
    ),
]


def _known_map(device_map: str | None) -> str | None:
    if device_map not in (None, *DEVICE_MAPS) and not Path(device_map).is_file():
        raise ParamsError(f"--device-map {device_map}: choose {', '.join(DEVICE_MAPS)}, or a JSON file with {{module: device}}")
    if device_map and launched_processes() > 1:
        raise ParamsError("--device-map spreads a backbone over the GPUs of one process; of several processes each has one GPU")
    return device_map


DeviceMapOption = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="NAME|FILE",
        help=f"Spread the backbone's layers over GPUs: {', '.join(DEVICE_MAPS)}, or a JSON file with a device for each module.",
        envvar="MHRCTL_DEVICE_MAP",
        callback=_known_map,
        rich_help_panel=SPEED,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MAX_THREADS,
        help="CPU threads; results depend on them in their last digits. [default: 1; on a GPU what its libraries take]",
        envvar=THREADS,
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run even if the output is up to date.", rich_help_panel=RUNNING)]
TogetherOption = Annotated[
    int,
    typer.Option(
        "--together",
        min=1,
        help="Tasks in one batch; lower it if memory is short.",
        envvar="MHRCTL_TOGETHER",
        rich_help_panel=SPEED,
    ),
]
OffOption = Annotated[
    list[str],
    typer.Option(
        "--off",
        metavar="NAME",
        help=f"Speed option to switch off; results change by rounding only: {', '.join(OFF)}; repeatable.",
        envvar="MHRCTL_OFF",
        rich_help_panel=SPEED,
    ),
]
CheckpointingOption = Annotated[
    bool,
    typer.Option(
        "--checkpointing",
        help="Less memory for more time: activations of a block are computed again in the backward pass.",
        envvar="MHRCTL_CHECKPOINTING",
        rich_help_panel=SPEED,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile what surrounds the matrix products (torch.compile); worth it on a GPU.",
        envvar="MHRCTL_COMPILE",
        rich_help_panel=SPEED,
    ),
]


def _known_trackers(names: list[str]) -> list[str]:
    require_trackers(names)
    return names


TrackOption = Annotated[
    list[str],
    typer.Option(
        "--track",
        metavar="NAME",
        help=f"Tracker to send losses and scores to: {', '.join(TRACKERS)}; repeatable.",
        envvar="MHRCTL_TRACK",
        callback=_known_trackers,
        rich_help_panel=RUNNING,
    ),
]


EVERY_SECTION = tuple(Params.model_fields)


def open_project(
    folder: Path, sets: Sequence[str] = (), recipe: str | None = None, *, reads: Sequence[str] = ()
) -> tuple[Project, Settings]:
    """Find a project and read its params.yaml.

    Args:
        folder: of the project.
        sets: of `--set`.
        recipe: of `--recipe`.
        reads: the sections, or settings, that the command reads, to which both are held, so that nothing is set in vain.
    """
    project = Project(folder)
    require_sections(sets, reads)
    if recipe and not set(reads) & set(recipe_of(recipe).sections):
        raise ParamsError(
            f"--recipe {recipe}: it sets nothing in {listed(reads)}, which is what this command reads; leave it out"
        )
    return project, load_params(project.params, sets, recipe)


@dataclass(frozen=True)
class CellChoice:
    """What names a cell: `name`, `cell` (with the settings of its file), or axes, of which None is what the grid has first."""

    method: str | None = None
    heads: int | None = None
    variant: str | None = None
    seed: int | None = None
    extra_steps: int | None = None
    cell: str | None = None
    name: str | None = None

    @property
    def has_axes(self) -> bool:
        """Whether the method, the heads, the variant or the extra steps are given; a seed can go with a name."""
        return any(value is not None for value in (self.method, self.heads, self.variant, self.extra_steps))


def chosen_cell(
    folder: Path, choice: CellChoice, sets: Sequence[str] = (), recipe: str | None = None, *, reads: str
) -> tuple[Project, CellParams]:
    """Resolve the cell that the options name, from params.yaml or, for `--cell`, from its synced file.

    Args:
        folder: of the project.
        choice: the options.
        sets: of `--set`.
        recipe: of `--recipe`.
        reads: the section that the command reads besides the grid, to which `--set` is held.
    """
    if choice.cell is not None:
        from mhrctl.tools.grid import read_cell

        require_alone(choice, sets, recipe)
        project = Project(folder)
        return project, read_cell(project, synced_name(project, choice.cell))
    project, settings = open_project(folder, sets, recipe, reads=list(dict.fromkeys((reads, "grid"))))
    cell = named_cell(settings, choice)
    require_read(settings, cell)
    resolved = resolve_cell(settings, cell)
    for text in (text for text in sets if text.startswith("grid.")):
        before = load_params(project.params, [other for other in sets if other is not text], recipe)
        cell_before = named_cell(before, choice)
        if before.params.grid != settings.params.grid and cell_before == cell and resolve_cell(before, cell) == resolved:
            raise ParamsError(f"--set {text}: it has no effect on cell {cell.name}; set what that cell has, or leave it out")
    return project, resolved


def require_alone(choice: CellChoice, sets: Sequence[str], recipe: str | None) -> None:
    """Refuse what is given with `--cell`.

    Raises:
        ParamsError: if anything is.
    """
    if sets or recipe or choice.has_axes or choice.seed is not None or choice.name is not None:
        raise ParamsError(
            "--cell takes all settings from the cell's file; leave out CELL, --method, --heads, --variant, --extra-steps,"
            " --seed, --recipe and --set"
        )


def named_cell(settings: Settings, choice: CellChoice) -> Cell:
    """Return the cell that is named, or that the axes describe; what they leave open is the grid's first."""
    if choice.name is not None:
        if choice.has_axes:
            raise ParamsError(f"{choice.name} names the cell; leave out --method, --heads, --variant and --extra-steps")
        return cell_called(settings.params, choice.name, choice.seed)
    if choice.method is None:
        raise ParamsError("name the cell, such as mhr-h8-s0, or its --method; `mhrctl check` lists the cells of the grid")
    return cell_of(
        settings.params,
        choice.method,
        heads=choice.heads,
        variant=choice.variant,
        seed=choice.seed,
        extra_steps=choice.extra_steps,
    )


def one_name(argument: str | None, option: str | None) -> str | None:
    """Return the name of a cell, which a command that reads no synced file takes in two places."""
    if argument is not None and option is not None:
        raise ParamsError(f"{argument} and --cell {option} name a cell; leave one out")
    return option if argument is None else argument


def output_of(project: Project, output: tuple[str, Cell]) -> Path:
    """Name the folder of a stage's output for a cell."""
    stage, cell = output
    return project.output(stage, cell.name)


def nothing_to_do(made: Provenance, out: Path, *beside: Path, threads: int | None = None, force: bool) -> bool:
    """Decide whether a stage's output is up to date, and then say so; this comes before anything heavy is imported.

    Processes on one machine see the same files and decide alike; those on several may not, and then the output is made again.

    Args:
        made: what decides the output.
        out: the output folder.
        beside: what the stage writes elsewhere.
        threads: how many CPU threads it would be made with; None for any number.
        force: make it again in any case.

    Raises:
        ParamsError: if an input is the output, or one lies in the other.
        ArtifactError: if an output of another stage that it reads is missing.
    """
    made.require_apart(out)
    on_one_machine = launched_processes() == int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if force or not on_one_machine or not made.is_up_to_date(out, *beside, threads=threads):
        made.require_inputs()
        return False
    if os.environ.get("RANK", "0") == "0":
        display.done(f"{out} is up to date; --force runs it again")
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
    quantisers = ("bitsandbytes", "torchao", "torch.utils._pytree")  # of kernels that are not here, of a class in two places
    for library in ("accelerate", "huggingface_hub", *quantisers):
        logging.getLogger(library).setLevel(logging.ERROR)


def open_accelerator(device: str, threads: int | None, *, many_processes: bool = False) -> Accelerator:
    """Ask accelerate for the device, and take so many threads; this comes before anything else imports torch.

    Args:
        device: `auto` or `cpu`.
        threads: of `--threads`.
        many_processes: whether the command can share its work between the processes of `accelerate launch`.
    """
    prepare_threads(threads, device)
    display.loading("torch, backbone")
    quieten()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # which `prepare`, that needs no accelerator, makes use of
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device == "cpu")
    if threads or accelerator.device.type == "cpu":
        limit_threads(threads or DEFAULT)
    if accelerator.num_processes > 1 and not many_processes:
        raise ParamsError(
            f"{accelerator.num_processes} processes: only `mhrctl pretrain` runs in more than one; where a backbone is too"
            " large for a GPU, --device-map spreads it over several"
        )
    return accelerator


def recording_of(
    trackers: list[str], project: Project, stage: str, cell: str | None = None, *, main: bool = True
) -> AbstractContextManager[Recorder]:
    """Open the trackers of `--track` for a stage; of several processes the main one alone records anything."""
    subject = Subject(
        project=project.root.resolve().name, name=f"{stage}-{cell}" if cell else stage, folder=project.tracking.resolve()
    )
    return recording(trackers if main else [], subject, warn=display.warn)
