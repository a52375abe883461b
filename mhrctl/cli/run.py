"""`mhrctl run` runs the stages of a project in parallel, with the results, cache and lock file of `dvc repro`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhrctl.cli import display
from mhrctl.cli.completion import complete_target
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.options import HERE, ProjectOption, ThreadsOption
from mhrctl.errors import ParamsError

if TYPE_CHECKING:
    from mhrctl.running.progress import Progress
    from mhrctl.tools.run import Cluster

MAX_JOBS = 1000
TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STAGE",
        help="Stages as `dvc repro` takes them: `pretrain`, `evaluate@mhr-h8-s0`; all if none.",
        autocompletion=complete_target,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        max=MAX_JOBS,
        help="Jobs at once at most; if not said, what GPUs, slots or workers allow, or as many as there are cores.",
    ),
]
GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", metavar="0,1,...", help="GPUs to use: one job each, or as `run.slots` in params.yaml says."),
]
SlotsOption = Annotated[
    int | None,
    typer.Option("--slots", min=1, max=MAX_JOBS, help="Slots, which `run.slots` in params.yaml divides as it does GPUs."),
]
DaskOption = Annotated[
    str | None, typer.Option("--dask", metavar="tcp://HOST:PORT", help="Run on the workers of this Dask scheduler.")
]
DaskConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--dask-config", metavar="FILE", help="Start a cluster (Slurm, PBS, Kubernetes, ...) as this file says, and run on it."
    ),
]
RemoteOption = Annotated[
    str | None, typer.Option("--remote", metavar="NAME", help="DVC remote, for Dask workers with checkouts of their own.")
]
WorkerDirOption = Annotated[
    str | None,
    typer.Option("--worker-dir", help="A worker's checkout, with --remote; by default where it was started."),
]
WHERE_STARTED = "."


def run(
    targets: TargetsArgument = None,
    jobs: JobsOption = None,
    gpus: GpusOption = None,
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    dask: DaskOption = None,
    dask_config: DaskConfigOption = None,
    remote: RemoteOption = None,
    worker_dir: WorkerDirOption = None,
    dry: Annotated[bool, typer.Option("--dry", help="Only show what would run, and why.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="With --dry: list each stage, not those together that are alike.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Whether other stages go on after one has failed.")
    ] = True,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork/--no-fork",
            help="Whether jobs are forked from a process that has imported torch and the stages, or import all themselves.",
        ),
    ] = True,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run what has changed, several stages at once; afterwards `dvc repro` has nothing to do."""
    from mhrctl.cli.run_view import conclude, make_view, show_plan
    from mhrctl.tools.run import Jobs, QuitError, plan
    from mhrctl.tools.run import run as execute

    if stages and not dry:
        raise ParamsError("--stages is of --dry; add it, or leave it out")
    cluster = _cluster(dask, dask_config, remote, worker_dir)
    if cluster and (gpus is not None or slots):
        raise ParamsError("--gpus and --slots are of one machine; with Dask a worker runs one job a thread")
    chosen = [] if gpus is None else [gpu.strip() for gpu in gpus.split(",")]
    asked = Jobs(at_once=jobs, gpus=chosen, slots=slots, threads=threads, cluster=cluster, forked=fork)
    display.loading("pipeline")
    if dry:
        planned = plan(project, targets or [], asked, report=display.done)
        if as_json:
            print_json({"stages": [each._asdict() for each in planned]})
        else:
            show_plan(planned, stages=stages)
        return
    try:
        ended = execute(project, targets or [], asked, view=make_view(), keep_going=keep_going)
    except QuitError as quit_:
        raise typer.Exit(128 + quit_.signal) from None
    conclude(ended.progress, ended.seconds)
    if as_json:
        print_json({"seconds": ended.seconds, "signal": ended.signal, "stages": _records(ended.progress)})
    if ended.signal:
        raise typer.Exit(128 + ended.signal)
    if ended.progress.bad():
        raise typer.Exit(1)


def _records(progress: Progress) -> list[dict[str, Any]]:
    """The stages of a run as JSON has them."""
    return [
        {"name": name, "state": entry.state, "seconds": entry.seconds, "note": entry.note or None, "log": entry.log}
        for name, entry in progress.stages.items()
    ]


def _cluster(dask: str | None, dask_config: Path | None, remote: str | None, worker_dir: str | None) -> Cluster | None:
    """The other machines that jobs run on, if any; refuses options that do not go together."""
    from mhrctl.tools.run import Cluster

    if dask and dask_config:
        raise ParamsError("--dask names a running cluster, --dask-config starts one; leave one out")
    if dask or dask_config:  # the path is made whole now, for the project becomes the working directory
        if worker_dir is not None and not remote:
            raise ParamsError("--worker-dir is a checkout of a worker that does not see the project; it needs --remote")
        return Cluster(dask, dask_config.resolve() if dask_config else None, remote, worker_dir or WHERE_STARTED)
    if remote or worker_dir is not None:
        raise ParamsError("--remote and --worker-dir only work with --dask or --dask-config")
    return None
