"""Several commands share these options, which become parameters here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.hashing import content_hash
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.provenance import Provenance
from mhrctl.cli import display
from mhrctl.cli.completion import complete_off, complete_recipe, complete_setting, complete_tracker
from mhrctl.cli.help import RUNNING, SETTINGS, SPEED
from mhrctl.cli.threads import DEFAULT, limit_threads, prepare_threads
from mhrctl.config.overrides import require_sections
from mhrctl.config.params import Params
from mhrctl.config.recipes import RECIPES
from mhrctl.config.recipes import recipe as recipe_of
from mhrctl.config.resolve import Settings, load_params
from mhrctl.errors import ParamsError, listed
from mhrctl.models.speed import DEVICE_MAPS, OFF
from mhrctl.progress import Recorder, unrecorded
from mhrctl.running.machine import THREADS
from mhrctl.tracking.backend import Subject
from mhrctl.tracking.recording import recording
from mhrctl.tracking.table import TRACKERS, named, require_trackers

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
        autocompletion=complete_setting,
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
        autocompletion=complete_off,
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
        help="Compile blocks of T5 (torch.compile); worth it for long trainings, and on a GPU.",
        envvar="MHRCTL_COMPILE",
        rich_help_panel=SPEED,
    ),
]


def _known_trackers(texts: list[str]) -> list[str]:
    names = named(texts)
    require_trackers(names)
    return names


TrackOption = Annotated[
    list[str],
    typer.Option(
        "--track",
        metavar="NAME",
        help=f"Tracker that records losses and scores: {', '.join(TRACKERS)}; repeatable, or several with commas.",
        autocompletion=complete_tracker,
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


def quieten(loads: str = "torch") -> None:
    """Silence what libraries report of loading and generation, and show that something is loaded, which takes seconds.

    Args:
        loads: what it is.
    """
    display.loading(loads)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    quieten_loggers()


def quieten_loggers() -> None:
    """Silence what libraries report of loading through Python's logging, without importing any."""
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
    quieten("torch, backbone")
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
    trackers: list[str],
    project: Project,
    made: Provenance,
    cell: str | None = None,
    *,
    group: str | None = None,
    main: bool = True,
) -> AbstractContextManager[Recorder]:
    """Open the trackers of `--track` for a stage; of several processes the main one alone records anything.

    Args:
        trackers: of `--track`.
        project: that has the folder of trackers.
        made: what decides the output of the stage.
        cell: the name of its cell.
        group: what the cells of all seeds are called.
        main: whether this is the main process.
    """
    if not trackers or not main:
        return nullcontext(unrecorded)
    lock = project.root / "dvc.lock"
    subject = Subject(
        project=project.root.resolve().name,
        stage=made.stage,
        folder=project.tracking.resolve(),
        cell=cell,
        group=group,
        settings=made.params,
        key=sha256(made.key().encode()).hexdigest(),
        lock=content_hash(lock) if lock.is_file() else None,
    )
    return recording(trackers, subject, warn=display.warn)
