"""A project is run: its slots and machines are made ready, its pipeline is opened, its stages run, signals end them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from mhrctl.artifacts.names import Project
from mhrctl.config.reading import read_yaml
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.progress import PROGRESS_SECONDS
from mhrctl.running.engine import DvcPipeline, open_pipeline
from mhrctl.running.fallback import PublicPipeline, dvc_root, jobs_folder, open_public_pipeline
from mhrctl.running.forked import FORKSERVER, OFF
from mhrctl.running.internals import InternalsError, check_internals
from mhrctl.running.jobs import only_run
from mhrctl.running.machine import THREADS, WAITING, cores, may_have_gpu, require_gpus, thread_environment
from mhrctl.running.pipeline import State
from mhrctl.running.plan import Planned, make_plan
from mhrctl.running.progress import Entry, Progress, earlier_seconds
from mhrctl.running.scheduler import Scheduler
from mhrctl.running.slots import Slots, make_slots
from mhrctl.running.up_to_date import read_up_to_date
from mhrctl.tools.grid import require_in_step


@dataclass(frozen=True)
class Cluster:
    """A cluster is other machines, as Dask has them.

    Attributes:
        address: of a running scheduler.
        config: in place of an address, a file of a cluster to start.
        remote: the DVC remote of workers that have checkouts of the project; None for those that share its folder.
        checkout: where a worker's checkout is.
    """

    address: str | None
    config: Path | None
    remote: str | None
    checkout: str


@dataclass(frozen=True)
class Jobs:
    """Jobs are so many at once, and each of them gets so much.

    Attributes:
        at_once: at most; None for as many as the slots, the workers, or this machine's cores allow.
        gpus: numbers or UUIDs of GPUs, each of which is a slot.
        slots: how many slots there are, in place of GPUs.
        threads: CPU threads of a job; None for one, and on GPUs and workers for what their own environment says.
        cluster: the machines; None for this one.
        forked: whether a job on this machine's CPU is forked from a process that has imported what jobs need.
    """

    at_once: int | None = None
    gpus: Sequence[str] = ()
    slots: int | None = None
    threads: int | None = None
    cluster: Cluster | None = None
    forked: bool = True


class View(Protocol):
    """A view shows a run in progress."""

    def showing(self, progress: Progress, at_once: int) -> AbstractContextManager[None]:
        """Show a run until the block ends."""

    def changed(self, name: str) -> None:
        """Take in that the state of a stage has changed."""

    def report(self, line: str) -> None:
        """Say in a line what else there is to know."""


@dataclass(frozen=True)
class Ended:
    """How a run has ended.

    Attributes:
        progress: the states of its stages.
        seconds: how long it took.
        signal: the signal that ended it; None if it ended by itself.
    """

    progress: Progress
    seconds: float
    signal: int | None


class QuitError(Exception):
    """A second signal has ended a run at once.

    Attributes:
        signal: the first of them.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def plan(project: Path, targets: Sequence[str], jobs: Jobs, *, report: Callable[[str], None]) -> list[Planned]:
    """Say what a run would do with each stage, and why; the arguments are those of `run`.

    Raises:
        ArtifactError: if DVC is none of the versions that can tell.
    """
    _slots(project, jobs)
    with _open_pipeline(project, targets, report) as pipeline:
        if not isinstance(pipeline, DvcPipeline):
            raise ArtifactError("--dry needs a tested version of dvc (see above); use `dvc repro --dry`")
        return make_plan(pipeline)


def run(project: Path, targets: Sequence[str], jobs: Jobs, *, view: View, keep_going: bool = True) -> Ended:
    """Run a project's stages that have changed, several at once.

    Args:
        project: its folder.
        targets: stages as `dvc repro` takes them; empty for all.
        jobs: how many at once, and where.
        view: shows what happens.
        keep_going: whether other stages go on after one has failed.

    Raises:
        DataError: if there is no such folder or target.
        ParamsError: if the slots do not fit, or the cluster cannot be used.
        ArtifactError: if the project's grid is not in step, or another run is in progress.
        QuitError: at the second signal.
    """
    slots = _slots(project, jobs)
    if names := _up_to_date(project, targets):
        return Ended(Progress({name: Entry(State.UNCHANGED) for name in names}), 0.0, None)
    earlier = earlier_seconds(Project(project).run_log("run").parent)
    with _open_pipeline(project, targets, view.report) as pipeline, ExitStack() as stack:
        stack.enter_context(only_run(pipeline.folder))
        executor: Executor
        if jobs.cluster:
            executor, at_once = stack.enter_context(_open_workers(pipeline, jobs.cluster, jobs.at_once, view.report))
            slots = make_slots(at_once, [], None, {})  # a worker's thread is one, whatever `run.slots` says of this machine
        else:
            executor = stack.enter_context(ThreadPoolExecutor(slots.limit))
        scheduler = Scheduler(
            pipeline,
            executor,
            slots.limit,
            slots=slots,
            env=_environment(jobs),
            keep_going=keep_going,
            earlier=earlier,
            watch=view.changed,
            tell=view.report,
        )
        start = time.monotonic()
        with _ended_by_signals(scheduler, view.report) as received, view.showing(scheduler.progress, slots.limit):
            scheduler.run()
        if isinstance(pipeline, DvcPipeline) and not scheduler.progress.bad() and not received:
            with pipeline.session():
                pipeline.note_up_to_date(targets)
    return Ended(scheduler.progress, time.monotonic() - start, received[0] if received else None)


def _up_to_date(project: Path, targets: Sequence[str]) -> list[str]:
    """The stages that targets need, if an earlier run has noted that all are up to date and no file has changed since."""
    with chdir(project):
        return read_up_to_date(jobs_folder(dvc_root()), targets) or []


def _slots(project: Path, jobs: Jobs) -> Slots:
    shares = _shares(project)
    gpus, at_once = jobs.gpus if jobs.slots else require_gpus(jobs.gpus), jobs.at_once
    if at_once is None and not (gpus or jobs.slots) and _on_cpu(jobs):
        at_once = max(1, cores() // (jobs.threads or 1))
    try:
        return make_slots(at_once, gpus, jobs.slots, shares)
    except ParamsError as error:
        stage = str(error).removeprefix("run.slots.").partition(":")[0]
        place = f"{read_yaml(Project(project).params).at(('run', 'slots', stage))}: " if stage in shares else ""
        raise ParamsError(f"{place}{error}") from None


def _shares(project: Path) -> Mapping[str, float]:
    """{stage: slots} of params.yaml, once its grid is seen to be in step; nothing in a project without it."""
    if not project.is_dir():
        raise DataError(f"{project}: no such folder")
    where = Project(project)
    if not where.params.exists():
        return {}
    settings = load_params(where.params)
    require_in_step(settings, where)
    return {str(stage): share for stage, share in settings.params.run.slots.items()}


def _on_cpu(jobs: Jobs) -> bool:
    """Whether jobs compute on this machine's CPU: a GPU, if there may be one, takes one of them at once."""
    elsewhere = jobs.gpus or jobs.cluster
    return not elsewhere and (os.environ.get("MHRCTL_DEVICE") == "cpu" or not may_have_gpu())


def _environment(jobs: Jobs) -> dict[str, str]:
    """What jobs are told of progress, forks and threads; those of other programs than mhrctl, which has one by default, too."""
    lines = {} if PROGRESS_SECONDS in os.environ else {PROGRESS_SECONDS: "10"}  # for whoever watches the run
    if not jobs.forked:
        lines[FORKSERVER] = OFF
    elif not jobs.cluster and FORKSERVER not in os.environ:
        lines[FORKSERVER] = str(os.getpid())
    if jobs.threads is not None:
        return lines | {THREADS: str(jobs.threads), **thread_environment(jobs.threads)}
    return lines | (thread_environment(1) if _on_cpu(jobs) else dict(WAITING))


@contextmanager
def _open_pipeline(
    project: Path, targets: Sequence[str], report: Callable[[str], None]
) -> Iterator[DvcPipeline | PublicPipeline]:
    """The project's stages, from DVC's inside if that is as tested, else by its command line."""
    try:
        check_internals()
    except InternalsError as error:
        report(f"{error}: going by `dvc repro --single-item` instead, which is slower")
        with open_public_pipeline(project, list(targets)) as public:
            yield public
    else:
        with open_pipeline(project, list(targets)) as pipeline:
            yield pipeline


@contextmanager
def _open_workers(
    pipeline: DvcPipeline | PublicPipeline, cluster: Cluster, at_once: int | None, report: Callable[[str], None]
) -> Iterator[tuple[Executor, int]]:
    """What runs jobs on other machines, and how many it takes at once."""
    from mhrctl.running.remote import open_workers

    if not isinstance(pipeline, DvcPipeline):
        raise ArtifactError("--dask needs a tested version of dvc (see above)")
    with open_workers(
        pipeline.folder,
        pipeline.files_of,
        address=cluster.address,
        config=cluster.config,
        jobs=at_once,
        remote=cluster.remote,
        checkout=cluster.checkout,
        tell=report,
    ) as workers:
        yield workers


@contextmanager
def _ended_by_signals(scheduler: Scheduler, report: Callable[[str], None]) -> Iterator[list[int]]:
    """End a run's jobs at the first SIGINT or SIGTERM, and everything at the second.

    Yields:
        The signals received.

    Raises:
        QuitError: at the second.
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
        report("quit; `mhrctl run` goes on from here")  # said before the pools close, which may take as long as their jobs
        raise QuitError(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
