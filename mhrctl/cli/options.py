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
from mhrctl.cli.threads import DEFAULT, limit_threads, prepare_threads
from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.fields import MAX_COUNT, MAX_SEED, MAX_WIDTH
from mhrctl.config.grid import PLAIN, MethodAxes
from mhrctl.config.methods import METHODS, method
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
    typer.Option("--project", "-C", help="Folder that holds params.yaml.", envvar="MHRCTL_PROJECT", show_default=False),
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override params.yaml; repeatable.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help=f"Settings of the paper over those of params.yaml: {', '.join(RECIPES)}.")
]
MethodOption = Annotated[str | None, typer.Option("--method", "-m", help=f"One of: {', '.join(METHODS)}.")]
HeadsOption = Annotated[
    int | None, typer.Option("--heads", min=1, max=MAX_WIDTH, help="Routing heads, for mhr and its variants.")
]
VariantOption = Annotated[str | None, typer.Option("--variant", help="A name of `grid.variants`, such as another layout.")]
ExtraStepsOption = Annotated[
    int | None,
    typer.Option("--extra-steps", min=1, max=MAX_COUNT, help="Steps that a single adapter is trained on, on all tasks."),
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


def _known_map(device_map: str | None) -> str | None:
    if device_map not in (None, *DEVICE_MAPS) and not Path(device_map).is_file():
        raise ParamsError(f"--device-map {device_map}: choose {', '.join(DEVICE_MAPS)}, or a JSON file with {{module: device}}")
    if device_map and launched_processes() > 1:
        raise ParamsError("--device-map: one process spreads a backbone over GPUs; of several each has its own GPU")
    return device_map


DeviceMapOption = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="NAME|FILE",
        help=f"Spread the backbone's layers over GPUs: {', '.join(DEVICE_MAPS)}, or a JSON file with a device for each module.",
        envvar="MHRCTL_DEVICE_MAP",
        callback=_known_map,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MAX_THREADS,
        help="CPU threads, on which the last bits of results depend. [default: 1; on a GPU what its libraries take]",
        envvar=THREADS,
        show_default=False,
    ),
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


def _known_trackers(names: list[str]) -> list[str]:
    require_trackers(names)
    return names


TrackOption = Annotated[
    list[str],
    typer.Option(
        "--track",
        metavar="NAME",
        help=f"Show the command's numbers in a tracker, which changes no result: {', '.join(TRACKERS)}; repeatable.",
        envvar="MHRCTL_TRACK",
        callback=_known_trackers,
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
        raise ParamsError(f"--recipe {recipe}: it says nothing of {listed(reads)}, which this command reads; leave it out")
    return project, load_params(project.params, sets, recipe)


@dataclass(frozen=True)
class CellChoice:
    """The options that name a cell: either `cell`, or the others, of which None is what the grid has first."""

    method: str | None = None
    heads: int | None = None
    variant: str | None = None
    seed: int | None = None
    extra_steps: int | None = None
    cell: str | None = None

    @property
    def has_axes(self) -> bool:
        """Whether an option but `--cell` is given."""
        return any(value is not None for value in (self.method, self.heads, self.variant, self.seed, self.extra_steps))


def chosen_cell(
    folder: Path, choice: CellChoice, sets: Sequence[str] = (), recipe: str | None = None, *, reads: str
) -> tuple[Project, CellParams]:
    """Resolve the cell that the options name, from params.yaml or, for `--cell`, from its synced file.

    Args:
        folder: of the project.
        choice: the options.
        sets: of `--set`.
        recipe: of `--recipe`.
        reads: the section that the command reads beside the grid, to which `--set` is held.
    """
    if choice.cell is not None:
        from mhrctl.tools.grid import read_cell

        require_alone(choice, sets, recipe)
        project = Project(folder)
        return project, read_cell(project, choice.cell)
    project, settings = open_project(folder, sets, recipe, reads=list(dict.fromkeys((reads, "grid"))))
    cell = named_cell(settings, choice)
    require_read(settings, cell)
    resolved = resolve_cell(settings, cell)
    for text in (text for text in sets if text.startswith("grid.")):
        before = load_params(project.params, [other for other in sets if other is not text], recipe)
        cell_before = named_cell(before, choice)
        if before.params.grid != settings.params.grid and cell_before == cell and resolve_cell(before, cell) == resolved:
            raise ParamsError(f"--set {text}: it changes nothing of cell {cell.name}; set what that cell has, or leave it out")
    return project, resolved


def require_alone(choice: CellChoice, sets: Sequence[str], recipe: str | None) -> None:
    """Refuse what stands beside `--cell`.

    Raises:
        ParamsError: if anything does.
    """
    if sets or recipe or choice.has_axes:
        raise ParamsError(
            "--cell stands for all settings of a cell; leave out --method, --heads, --variant, --extra-steps, --seed,"
            " --recipe and --set"
        )


def named_cell(settings: Settings, choice: CellChoice) -> Cell:
    """Name the cell that the options but `--cell` describe; what they leave open is the grid's first."""
    grid = settings.params.grid
    if choice.method is None:
        raise ParamsError(f"name the cell with --method (one of: {', '.join(METHODS)}) or --cell")
    row, variant = method(choice.method), choice.variant or PLAIN
    heads = choice.heads
    if heads is None:
        axes = grid.methods.get(choice.method) or grid.methods.get(row.pretrain) or MethodAxes()
        if row.multi_head and not axes.heads_of(variant):
            raise ParamsError(f"--method {choice.method} needs --heads")
        heads = axes.heads_of(variant)[0] if row.multi_head else 1
    return Cell(
        method=choice.method,
        heads=heads,
        variant=variant,
        seed=grid.seeds[0] if choice.seed is None else choice.seed,
        pretrain_seed=grid.pretrain_seed,
        extra_steps=choice.extra_steps or 0,
    )


def output_of(project: Project, output: tuple[str, Cell]) -> Path:
    """Name the folder of a stage's output for a cell."""
    stage, cell = output
    return project.output(stage, cell.name)


def nothing_to_do(made: Provenance, out: Path, *beside: Path, threads: int | None = None, force: bool) -> bool:
    """Decide whether a stage's output is up to date, and then say so; this comes before anything heavy is imported.

    Processes on one machine see the same files and decide alike; those on several may not, and then the output is made anew.

    Args:
        made: what decides the output.
        out: the output folder.
        beside: what the stage writes elsewhere.
        threads: how many CPU threads it would be made with; None for any number.
        force: make it anew in any case.

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
