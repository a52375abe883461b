"""Jobs on workers that share no file system with the project: each has a checkout of its own, a DVC remote carries the data.

A job's round trip: what its stage depends on is pushed to the remote; the worker pulls that into its checkout, writes the
stage's parameter files, runs the command and pushes what it wrote; here that is pulled and put in place. So when the job's
future is done the project looks as if the command had run in it, and a scheduler records it as it records any other job. The
project's lock, pipeline and dvc.lock are left alone throughout (`mhrctl.running.depot`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar, cast

from mhrctl.errors import ParamsError
from mhrctl.running.clusters import ClusterError, ClusterExecutor, mark, open_cluster
from mhrctl.running.depot import COPIES, LINKS, SCRATCH, open_depot, read_settings, remove, require_remote
from mhrctl.running.jobs import POLL, TICKET, Job, JobFiles, ask_to_stop, run_job
from mhrctl.running.pipeline import StageFiles

P = ParamSpec("P")
T = TypeVar("T")

TRANSFERS = 4
"""Jobs whose data is pushed or pulled here at the same time."""
TRAVELLERS = 256
"""Jobs under way at the same time, for each of which a thread waits."""
LOG_BYTES = 1 << 20
"""How much of the end of a job's log comes back."""


@dataclass(frozen=True)
class Errand:
    """What a job takes along.

    Attributes:
        ticket: tells this start of the job from others.
        remote: name of the DVC remote.
        checkout: the worker's folder, as the worker is to read it.
        token: name of a file in the scratch folder of the project itself, and of no checkout.
        inputs: {path: hash} to pull.
        texts: {path: content} of the parameter files.
        outs: paths to push.
    """

    ticket: str
    remote: str
    checkout: str
    token: str
    inputs: Mapping[str, str]
    texts: Mapping[str, bytes]
    outs: Sequence[str]


@dataclass(frozen=True)
class Delivery:
    """What comes back: the exit code, the end of the log, and {path: hash} of what was pushed."""

    code: int
    log: bytes
    outputs: Mapping[str, str]


class RemoteExecutor(Executor):
    """Runs a project's jobs in the checkouts of a cluster's workers: `submit(run_job, job)`, as with any other executor.

    When a job's future is done, its outputs lie in the project, and its log and exit code in its folder. The future raises
    `ClusterError` or `ArtifactError` if the job was lost or data could not be carried. A stop file in the job's folder
    (`ask_to_stop`) ends the command on its worker. A stage without outputs works on the project itself, and runs here.

    Args:
        cluster: whose workers have checkouts.
        root: the DVC root of the project; commands run below it.
        remote: name of a DVC remote, of the project and of every checkout.
        checkout: folder of a worker: absolute, or relative to where the worker was started; `~` and `$NAME` are the worker's.
        token: from `mark` in the project's scratch folder.
        files_of: says what the stage of a name reads and writes; asked by `submit`, in the thread of its caller.
    """

    def __init__(
        self,
        cluster: ClusterExecutor,
        root: Path,
        *,
        remote: str,
        checkout: str,
        token: str,
        files_of: Callable[[str], StageFiles],
    ) -> None:
        self._cluster, self._root, self._files_of = cluster, root.resolve(), files_of
        self._remote, self._checkout, self._token = remote, checkout, Path(token).name
        self._threads = ThreadPoolExecutor(TRAVELLERS, thread_name_prefix="round-trip")
        self._transfers = BoundedSemaphore(TRANSFERS)
        self._pushed: set[str] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a job on its round trip."""
        job = _job_of(fn, *args, *kwargs)
        files = self._files_of(job.name)
        if files.outs:
            texts = {path: (self._root / path).read_bytes() for path in files.params}
            future = self._threads.submit(self._round_trip, job, files, texts)
        else:
            future = self._threads.submit(run_job, job)
        return cast("Future[T]", future)

    def require_checkouts(self) -> None:
        """Check that the workers of this moment have checkouts; those that join later fail with their first job instead.

        Raises:
            ClusterError: naming a worker that has none, or none with the remote.
        """
        for worker, answer in self._cluster.on_all(_complaint, self._checkout, self._token, self._remote).items():
            if answer is not None:
                raise ClusterError(f"worker {worker} {answer}")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End, once all jobs are back or, with `cancel_futures`, those that have left."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _round_trip(self, job: Job, files: StageFiles, texts: Mapping[str, bytes]) -> int:
        with self._transfers:
            inputs = self._push(files.deps)
        errand = Errand(uuid.uuid4().hex, self._remote, self._checkout, self._token, inputs, texts, files.outs)
        env = {key: value for key, value in job.env.items() if key not in {TICKET, "DVC_ROOT"}}
        there = replace(job, cwd=str(Path(job.cwd).resolve().relative_to(self._root)), env=env, folder="")
        here = JobFiles(Path(job.folder), job.name)
        delivery = self._await(self._cluster.submit(run_in_checkout, there, errand), here, errand.ticket)
        here.log.write_bytes(delivery.log)
        if delivery.outputs:
            with self._transfers, open_depot(self._root, self._remote, links=COPIES) as depot:
                depot.pull(delivery.outputs)
            self._pushed.update(delivery.outputs.values())
        here.code.write_text(f"{delivery.code}\n")
        return delivery.code

    def _push(self, deps: Mapping[str, str | None]) -> dict[str, str]:
        """Push what the remote has not got from here yet; returns {path: hash} of all."""
        inputs = {path: md5 for path, md5 in deps.items() if md5 is not None}
        loose = [path for path, md5 in deps.items() if md5 is None]
        if loose or not self._pushed.issuperset(inputs.values()):
            with open_depot(self._root, self._remote, links=COPIES) as depot:
                inputs |= depot.add(loose, keep=True)
                depot.push({path: md5 for path, md5 in inputs.items() if md5 not in self._pushed})
        self._pushed.update(inputs.values())
        return inputs

    def _await(self, call: Future[Delivery], here: JobFiles, ticket: str) -> Delivery:
        """Wait for a job; hand on the wish to stop it."""
        while True:
            try:
                return call.result(POLL)
            except TimeoutError:
                if not here.stop.exists():
                    continue
            answers = self._cluster.on_all(_stop_here, ticket, here.stop.read_text() == "kill")
            if True not in answers.values() and call.cancel():  # no worker has begun it
                return Delivery(-signal.SIGTERM, b"", {})


def _job_of(fn: object, *args: object) -> Job:
    if fn is run_job and len(args) == 1 and isinstance(args[0], Job):
        return args[0]
    raise TypeError("a RemoteExecutor runs jobs: submit(run_job, job)")


@contextmanager
def open_workers(
    folder: Path,
    files_of: Callable[[str], StageFiles],
    *,
    address: str | None,
    config: Path | None,
    jobs: int | None,
    remote: str | None,
    checkout: str,
    tell: Callable[[str], None],
) -> Iterator[tuple[Executor, int]]:
    """Open what runs a project's jobs on other machines, as `mhrctl run` is asked to.

    Args:
        folder: where the project's job files lie, below its `.dvc/tmp`.
        files_of: as of `RemoteExecutor`; of use with `remote` only.
        address: of a running Dask scheduler.
        config: or a file of a cluster to start.
        jobs: jobs at once at most; None for as many as the workers have threads.
        remote: a DVC remote, if the workers do not share the project's file system.
        checkout: with `remote`, the folder of a worker's checkout.
        tell: told in a line when there is no worker, and when there is one again.

    Yields:
        An executor for jobs, and how many to give it at once.

    Raises:
        ClusterError: if there is no cluster, or its workers of this moment are unfit or none (see `open_cluster`).
        ParamsError: if the cluster file is wrong or the project has no such remote.
    """
    with open_cluster(address, config, jobs=jobs, shared=None if remote else folder, tell=tell) as cluster:
        at_once = jobs or cluster.slots
        if remote is None:
            yield cluster, at_once
            return
        with open_checkouts(
            cluster, folder.resolve().parents[2], remote=remote, checkout=checkout, files_of=files_of
        ) as executor:
            yield executor, at_once


@contextmanager
def open_checkouts(
    cluster: ClusterExecutor, root: Path, *, remote: str, checkout: str, files_of: Callable[[str], StageFiles]
) -> Iterator[RemoteExecutor]:
    """Make ready to run a project's jobs in checkouts; the arguments are those of `RemoteExecutor`.

    Raises:
        ClusterError: naming a worker of this moment without a checkout that has the remote.
        ParamsError: if the project has no such remote.
    """
    require_remote(read_settings(root), remote)
    with mark(root / SCRATCH) as token:
        executor = RemoteExecutor(cluster, root, remote=remote, checkout=checkout, token=token, files_of=files_of)
        executor.require_checkouts()
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


_HERE: dict[str, JobFiles] = {}
"""{ticket: files} of the jobs in this worker's process."""


def run_in_checkout(job: Job, errand: Errand) -> Delivery:
    """Run a job in this worker's checkout: pull, run, push. Jobs that share a checkout take turns.

    Raises:
        ArtifactError: if data could not be carried.
        ClusterError: if this worker has no checkout.
    """
    if answer := _complaint(errand.checkout, errand.token):
        raise ClusterError(f"a worker {answer}")
    checkout = _expand(errand.checkout)
    with TemporaryDirectory(dir=checkout / SCRATCH, prefix="job-") as folder:
        files = _HERE[errand.ticket] = JobFiles(Path(folder), job.name)
        try:
            with _turn(checkout), open_depot(checkout, errand.remote, links=LINKS) as depot:
                depot.pull(errand.inputs)
                _make_room(checkout, errand)
                env = {**job.env, "DVC_ROOT": str(checkout)}
                code = run_job(replace(job, cwd=str(checkout / job.cwd), env=env, folder=folder))
                log = files.log.read_bytes()[-LOG_BYTES:] if files.log.exists() else b""
                outputs = {} if code else depot.add([path for path in errand.outs if (checkout / path).exists()], keep=False)
                depot.push(outputs)
                return Delivery(code, log, outputs)
        finally:
            del _HERE[errand.ticket]


def _make_room(checkout: Path, errand: Errand) -> None:
    """Write the parameter files, and remove outputs that an earlier job left."""
    for path, text in errand.texts.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_bytes(text)
    for path in errand.outs:
        remove(checkout / path)
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _turn(checkout: Path) -> Iterator[None]:
    """Have a checkout to oneself."""
    with (checkout / SCRATCH / "checkout.flock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stop_here(ticket: str, hard: bool) -> bool:
    """Ask a job to stop, if it is in this process."""
    files = _HERE.get(ticket)
    if files is not None:
        with suppress(FileNotFoundError):  # it has just ended
            ask_to_stop(files, hard=hard)
    return files is not None


def _complaint(checkout: str, token: str, remote: str | None = None) -> str | None:
    """Why this machine has no checkout for a job, if it has none."""
    folder, host = _expand(checkout), socket.gethostname()
    if not (folder / ".dvc").is_dir():
        return f"on {host}: {folder} is no checkout of the project; clone it there, or name another folder with --worker-dir"
    if (folder / SCRATCH / token).exists():
        return f"on {host}: {folder} is the project itself; name a checkout of its own with --worker-dir, or leave out --remote"
    (folder / SCRATCH).mkdir(exist_ok=True)
    if remote is not None:
        try:
            require_remote(read_settings(folder), remote)
        except ParamsError as error:
            return f"on {host}: {folder}: {error}"
    return None


def _expand(checkout: str) -> Path:
    return Path(os.path.expandvars(checkout)).expanduser().resolve()
