"""`mhrctl run`: the stages of a project in parallel, with the results, cache and lock file of `dvc repro`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts import Project
from mhrctl.cli import display
from mhrctl.cli.options import ProjectOption, open_project
from mhrctl.errors import ArtifactError, DataError, ParamsError

if TYPE_CHECKING:
    from mhrctl.running.engine import DvcPipeline
    from mhrctl.running.fallback import PublicPipeline
    from mhrctl.running.plan import Planned
    from mhrctl.running.scheduler import Scheduler

TargetsArgument = Annotated[
    list[str] | None, typer.Argument(help="Stages as `dvc repro` takes them: `pretrain`, `evaluate@mhr-h8-s0`; all if none.")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Jobs at once at most; 1, or what the slots allow, if not said.")
]
GpusOption = Annotated[
    str, typer.Option("--gpus", metavar="0,1,...", help="GPUs to use: one job each, or as `run.slots` in params.yaml says.")
]
SlotsOption = Annotated[
    int | None, typer.Option("--slots", min=1, help="Slots, which `run.slots` in params.yaml divides as it does GPUs.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of a job; the last bits of results depend on them.")
]
DaskOption = Annotated[
    str | None, typer.Option("--dask", metavar="tcp://HOST:PORT", help="Run on the workers of this Dask scheduler.")
]
DaskConfigOption = Annotated[
    Path | None, typer.Option("--dask-config", metavar="FILE", help="Start a cluster (SLURM and kin) and run on it.")
]
RemoteOption = Annotated[
    str | None, typer.Option("--remote", metavar="NAME", help="DVC remote, for Dask workers with checkouts of their own.")
]
WorkerDirOption = Annotated[
    str, typer.Option("--worker-dir", help="A worker's checkout, with --remote: by default where the worker was started.")
]
HERE = "."
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run(
    targets: TargetsArgument = None,
    jobs: JobsOption = None,
    gpus: GpusOption = "",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    dask: DaskOption = None,
    dask_config: DaskConfigOption = None,
    remote: RemoteOption = None,
    worker_dir: WorkerDirOption = HERE,
    dry: Annotated[bool, typer.Option("--dry", help="Only show what would run, and why.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Whether other stages go on after one has failed.")
    ] = True,
    project: ProjectOption = Path(),
) -> None:
    """Run what has changed, several stages at once; afterwards `dvc repro` has nothing to do."""
    from mhrctl.cli.run_view import conclude, make_view, show_plan
    from mhrctl.running.jobs import only_run
    from mhrctl.running.progress import earlier_seconds
    from mhrctl.running.scheduler import Scheduler
    from mhrctl.running.slots import make_slots

    elsewhere = _require_fitting(dask, dask_config, remote, worker_dir, gpus, slots)
    cluster = dask_config.resolve() if dask_config else None  # the project becomes the working directory
    places = make_slots(jobs, [gpu.strip() for gpu in gpus.split(",") if gpu.strip()], slots, _shares(project))
    earlier = earlier_seconds(Project(project).run_log("run").parent)
    with _open_pipeline(project, targets or []) as pipeline:
        if dry:
            show_plan(_plan(pipeline))
            return
        if places.limit > 1 and not (elsewhere or gpus or threads or os.environ.get(THREADS[0])):
            share = max(1, (os.cpu_count() or 1) // places.limit)
            display.done(f"hint: each job may use every CPU core; --threads {share} shares them")
        with ExitStack() as stack:
            stack.enter_context(only_run(pipeline.folder))
            if elsewhere:
                executor, at_once = stack.enter_context(_open_workers(pipeline, dask, cluster, jobs, remote, worker_dir))
                places = make_slots(at_once, [], None, {})
            else:
                executor = stack.enter_context(ThreadPoolExecutor(places.limit))
            view = make_view()
            scheduler = Scheduler(
                pipeline,
                executor,
                places.limit,
                slots=places,
                env=dict.fromkeys(THREADS, str(threads)) if threads else {},
                keep_going=keep_going,
                earlier=earlier,
                watch=view.changed,
                tell=display.done,
            )
            start = time.monotonic()
            with _interrupted_by_signals(scheduler) as received, view.showing(scheduler.progress, places.limit):
                scheduler.run()
    conclude(scheduler.progress, time.monotonic() - start)
    if received:
        raise typer.Exit(128 + received[0])
    if scheduler.progress.bad():
        raise typer.Exit(1)


def _require_fitting(
    dask: str | None, dask_config: Path | None, remote: str | None, worker_dir: str, gpus: str, slots: int | None
) -> bool:
    """Whether jobs run on other machines; says which options do not go together."""
    if dask and dask_config:
        raise ParamsError("--dask names a running cluster, --dask-config starts one; leave one out")
    elsewhere = bool(dask or dask_config)
    if not elsewhere and (remote or worker_dir != HERE):
        raise ParamsError("--remote and --worker-dir are of Dask workers; they need --dask or --dask-config")
    if elsewhere and (gpus or slots):
        raise ParamsError("--gpus and --slots are of one machine; with Dask a worker runs one job a thread")
    return elsewhere


@contextmanager
def _open_workers(
    pipeline: DvcPipeline | PublicPipeline,
    dask: str | None,
    dask_config: Path | None,
    jobs: int | None,
    remote: str | None,
    worker_dir: str,
) -> Iterator[tuple[Executor, int]]:
    """What runs jobs on other machines, and how many it takes at once."""
    from mhrctl.running.engine import DvcPipeline
    from mhrctl.running.remote import open_workers

    if not isinstance(pipeline, DvcPipeline):
        raise ArtifactError("--dask needs a tested version of dvc (see above)")
    with open_workers(
        pipeline.folder,
        pipeline.files_of,
        address=dask,
        config=dask_config,
        jobs=jobs,
        remote=remote,
        checkout=worker_dir,
        tell=display.done,
    ) as workers:
        yield workers


def _shares(project: Path) -> dict[str, float]:
    """{stage: slots} of params.yaml, once its grid is seen to be in step; nothing in a project without it."""
    from mhrctl.grid import differences, expand

    if not project.is_dir():
        raise DataError(f"{project}: no such folder")
    if not Project(project).params.exists():
        return {}
    where, settings = open_project(project, [])
    if changes := differences(expand(settings, where), where):
        raise ArtifactError(
            f"{where.cell_index.parent}: {len(changes)} files not in step with params.yaml; run `mhrctl grid sync`"
        )
    return {str(stage): share for stage, share in settings.params.run.slots.items()}


@contextmanager
def _open_pipeline(project: Path, targets: list[str]) -> Iterator[DvcPipeline | PublicPipeline]:
    """The project's stages, from DVC's inside if that is as tested, else by its command line."""
    from mhrctl.running.engine import open_pipeline
    from mhrctl.running.fallback import open_public_pipeline
    from mhrctl.running.internals import InternalsError, check_internals

    try:
        check_internals()
    except InternalsError as error:
        display.done(f"{error}: going by `dvc repro --single-item` instead, which is slower")
        with open_public_pipeline(project, targets) as public:
            yield public
    else:
        with open_pipeline(project, targets) as pipeline:
            yield pipeline


def _plan(pipeline: DvcPipeline | PublicPipeline) -> list[Planned]:
    from mhrctl.running.engine import DvcPipeline
    from mhrctl.running.plan import make_plan

    if not isinstance(pipeline, DvcPipeline):
        raise ArtifactError("--dry needs a tested version of dvc (see above); use `dvc repro --dry`")
    return make_plan(pipeline)


@contextmanager
def _interrupted_by_signals(scheduler: Scheduler) -> Iterator[list[int]]:
    """End a run's jobs at the first SIGINT or SIGTERM, and everything at the second.

    Yields:
        The signals received.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        scheduler.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except KeyboardInterrupt:
        display.done("quit; `mhrctl run` goes on from here")
        raise typer.Exit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
