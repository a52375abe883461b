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
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from threading import BoundedSemaphore
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

from mhrctl.errors import ParamsError
from mhrctl.running.clusters import MARK, ClusterExecutor, open_cluster
from mhrctl.running.depot import COPIES, LINKS, SCRATCH, open_depot, remove, require_remote
from mhrctl.running.jobs import POLL, Job, JobFiles, ask_to_stop, read_wish, run_job
from mhrctl.running.pipeline import StageFiles

P = ParamSpec("P")
T = TypeVar("T")
FilesOf = Callable[[str], StageFiles]  # what a job's stage reads and writes

TRANSFERS = 4  # jobs whose data is pushed or pulled here at the same time
TRAVELLERS = 256  # jobs under way at the same time, for each of which a thread waits
LOG_BYTES = 1 << 20  # how much of the end of a job's log comes back


Delivery = tuple[int, bytes, dict[str, str]]  # exit code, the end of the log, and {path: hash} of what was pushed


class RemoteExecutor(ThreadPoolExecutor):
    """Runs a project's jobs in the checkouts of a cluster's workers: `submit(run_job, job)`, as with any other executor.

    When a job's future is done, its outputs lie in the project, and its log and exit code in its folder. The future raises
    `ClusterError` or `ArtifactError` if the job was lost or data could not be carried. A stop file in the job's folder
    (`ask_to_stop`) ends the command on its worker. A stage without outputs works on the project itself, and runs here.
    """

    def __init__(self, cluster: ClusterExecutor, root: Path, remote: str, checkout: str, files_of: FilesOf) -> None:
        super().__init__(TRAVELLERS, thread_name_prefix="round-trip")
        self._cluster, self._root, self._remote, self._checkout, self._files_of = cluster, root, remote, checkout, files_of
        self._transfers = BoundedSemaphore(TRANSFERS)
        self._pushed: set[str] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a job on its round trip."""
        (job,) = cast("tuple[Job]", args)
        files = self._files_of(job.name)
        if not files.outs:
            return super().submit(fn, *args, **kwargs)
        texts = {path: (self._root / path).read_bytes() for path in files.params}
        return cast("Future[T]", super().submit(self._round_trip, job, files, texts))

    def _round_trip(self, job: Job, files: StageFiles, texts: Mapping[str, bytes]) -> int:
        inputs = {path: md5 for path, md5 in files.deps.items() if md5 is not None}
        with self._transfers, open_depot(self._root, self._remote, links=COPIES) as depot:
            inputs |= depot.add(files.deps.keys() - inputs.keys(), keep=True)
            depot.push({path: md5 for path, md5 in inputs.items() if md5 not in self._pushed})
        self._pushed.update(inputs.values())
        there = replace(job, cwd=str(Path(job.cwd).resolve().relative_to(self._root)), folder=self._checkout, ticket="")
        here, ticket = JobFiles(Path(job.folder), job.name), uuid.uuid4().hex
        call = self._cluster.submit(_run_in_checkout, there, ticket, self._remote, inputs, texts, files.outs)
        code, log, outputs = self._await(call, here, ticket)
        here.log.write_bytes(log)
        with self._transfers, open_depot(self._root, self._remote, links=COPIES) as depot:
            depot.pull(outputs)
        self._pushed.update(outputs.values())
        here.code.write_text(f"{code}\n")
        return code

    def _await(self, call: Future[Delivery], here: JobFiles, ticket: str) -> Delivery:
        """Wait for a job; hand on the wish to stop it."""
        while True:
            try:
                return call.result(POLL)
            except TimeoutError:
                if not here.stop.exists():
                    continue
            begun = self._cluster.on_all(_stop_here, ticket, read_wish(here) == "kill")
            if True not in begun.values() and call.cancel():
                return -signal.SIGTERM, b"", {}


@contextmanager
def open_workers(
    folder: Path, files_of: FilesOf, *, jobs: int | None, remote: str | None, checkout: str, **cluster: object
) -> Iterator[tuple[Executor, int]]:
    """Open what runs a project's jobs on other machines, as `mhrctl run` is asked to, and how many jobs to give it at once.

    Args:
        folder: where the project's job files lie, below its `.dvc/tmp`.
        files_of: says what a job's stage reads and writes; it is asked in the thread that submits the job.
        jobs: jobs at once at most; None for as many as the workers have threads.
        remote: a DVC remote, if the workers do not share the project's file system.
        checkout: with `remote`, the folder of a worker's checkout: absolute, or relative to where the worker was started; `~`
            and `$NAME` are the worker's.
        cluster: `address`, `config` and `tell` of `open_cluster`.

    Raises:
        ClusterError: if there is no cluster, or its workers of this moment are unfit or none.
        ParamsError: if the cluster file is wrong or the project has no such remote.
    """
    options: Any = cluster
    if remote is None:
        with open_cluster(jobs=jobs, shared=folder, **options) as executor:
            yield executor, jobs or executor.slots
        return
    root = folder.resolve().parents[2]
    require_remote(root, remote)
    with NamedTemporaryFile(dir=root / SCRATCH, prefix=MARK) as token:
        check = partial(_check_checkout, checkout, Path(token.name).name, remote)
        with open_cluster(jobs=jobs, check=check, **options) as executor:
            trips = RemoteExecutor(executor, root, remote, checkout, files_of)
            try:
                yield trips, jobs or executor.slots
            finally:
                trips.shutdown(wait=False, cancel_futures=True)


_HERE: WeakValueDictionary[str, JobFiles] = WeakValueDictionary()
"""{ticket: files} of the jobs in this worker's process."""


def _run_in_checkout(
    job: Job, ticket: str, remote: str, inputs: Mapping[str, str], texts: Mapping[str, bytes], outs: Sequence[str]
) -> Delivery:
    """Run a job in this worker's checkout, its `folder`: pull, write parameter files, run, push."""
    checkout = _expand(job.folder)
    with TemporaryDirectory(dir=checkout / SCRATCH, prefix="job-") as folder:
        files = _HERE[ticket] = JobFiles(Path(folder), job.name)  # before its turn, so that it can be stopped while it waits
        turn = (checkout / SCRATCH / "checkout.flock").open("a")
        with turn, open_depot(checkout, remote, links=LINKS) as depot:
            fcntl.flock(turn, fcntl.LOCK_EX)  # jobs that share a checkout take turns
            depot.pull(inputs)
            for path in (*texts, *outs):
                remove(checkout / path)
                (checkout / path).parent.mkdir(parents=True, exist_ok=True)
            for path, text in texts.items():
                (checkout / path).write_bytes(text)
            job = replace(job, cwd=str(checkout / job.cwd), env={**job.env, "DVC_ROOT": str(checkout)}, folder=folder)
            code = run_job(job)
            log = files.log.read_bytes()[-LOG_BYTES:] if files.log.exists() else b""
            outputs = {} if code else depot.add([path for path in outs if (checkout / path).exists()], keep=False)
            depot.push(outputs)
            return code, log, outputs


def _stop_here(ticket: str, hard: bool) -> bool:
    """Ask a job to stop, if it is in this process."""
    with suppress(KeyError, FileNotFoundError):  # the latter if it has just ended
        ask_to_stop(_HERE[ticket], hard=hard)
    return ticket in _HERE


def _check_checkout(checkout: str, token: str, remote: str) -> str | None:
    """Why this machine has no checkout of a project, if it has none; the project's own scratch folder alone has the token."""
    folder, host = _expand(checkout), socket.gethostname()
    if not (folder / ".dvc").is_dir():
        return f"on {host}: {folder} is no checkout of the project; clone it there, or name another folder with --worker-dir"
    if (folder / SCRATCH / token).exists():
        return f"on {host}: {folder} is the project itself; name a checkout of its own with --worker-dir, or leave out --remote"
    (folder / SCRATCH).mkdir(exist_ok=True)
    try:
        require_remote(folder, remote)
    except ParamsError as error:
        return f"on {host}: {folder}: {error}"
    return None


def _expand(checkout: str) -> Path:
    return Path(os.path.expandvars(checkout)).expanduser().resolve()
