"""Jobs on other machines through Dask: a running cluster by its address, or one that a batch system is asked for.

A call is started at most once, since a command whose worker was lost may still be alive: where Dask would start it anew on
another worker, the job fails with that reason instead. A rerun is safe: over a shared file system a job's lock and exit code
lie in its folder, by which the next run waits for a command that is still alive, or takes the result of one that has ended.
"""

from __future__ import annotations

import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from reprlib import repr as shortened
from shutil import which
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mhrctl import __version__
from mhrctl.errors import MhrctlError, ParamsError, unknown

if TYPE_CHECKING:
    from distributed import Client

P = ParamSpec("P")
T = TypeVar("T")
Check = Callable[[], str | None]  # why the worker that calls it is unfit, if it is

BATCH = ("HTCondorCluster", "LSFCluster", "OARCluster", "PBSCluster", "SGECluster", "SLURMCluster")
CLUSTERS = {"LocalCluster": "distributed", **dict.fromkeys(BATCH, "dask_jobqueue")}
"""{class that a cluster file may name: its package}."""
QUIET = logging.CRITICAL
LOOPBACK = "127.0.0.1"
DASHBOARD = {"dashboard_address": f"{LOOPBACK}:0"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dask_jobqueue": {"silence_logs": QUIET, "scheduler_options": DASHBOARD},
    "distributed": {"silence_logs": QUIET, "threads_per_worker": 1, **DASHBOARD},
}
"""{package: settings that a cluster file may change}: no log lines amid the table of a run, and any port for the dashboard,
which whoever reaches it can read, and which is this machine's alone."""
MAX_BYTES = 1 << 20
MAX_WORKERS = 100_000
MAX_SHOWN = 200
COUNTS = {"jobs", "cores", "n_workers", "threads_per_worker"}
"""These settings of a cluster file are numbers of 1 or more."""
NO_WORKER = "no worker is there: jobs wait until one joins (if none does, a batch system's queue and output files say why)"
CONNECT_SECONDS = 10  # how long a scheduler may take to respond
LOOK_EVERY = 5.0  # seconds between looks at whether there are workers
GONE = "the Dask scheduler is gone, or has dropped the job; run again: what has finished is kept"
LOST = "its worker was lost (killed, out of memory or out of time); run again: what has finished is kept"
MARK = "seen-by-workers-"
"""How the names of empty files begin by which workers tell whether a folder is the one that they see."""


class ClusterError(MhrctlError):
    """A cluster, or one of its workers, that cannot run a job."""


@contextmanager
def open_cluster(
    address: str | None = None,
    config: Path | None = None,
    *,
    jobs: int | None = None,
    shared: Path | None = None,
    check: Check = lambda: None,
    tell: Callable[[str], None] = lambda _line: None,
) -> Iterator[ClusterExecutor]:
    """Open a cluster, and close it at the end; futures raise `ClusterError` for a call that could not be run to its end.

    Args:
        address: of a running Dask scheduler, such as `tcp://host:8786`; it stays up.
        config: or, without one, a file that describes the cluster to start; it ends with the block.
        jobs: workers (batch jobs) to ask for, of `config`; None for as many as the file says.
        shared: a folder that every worker must be able to read and write.
        check: or what else a worker must be fit for.
        tell: is called with a line when there is no worker, and when there is one again.

    Raises:
        ClusterError: if Dask is missing, nobody responds, or a worker is unfit; if none has joined, and `jobs` is None.
        ParamsError: if the cluster file is wrong.
    """
    if find_spec("distributed") is None or find_spec("dask_jobqueue") is None:
        raise ClusterError("--dask and --dask-config need Dask; run `pip install 'mhrctl[dask]'`")
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    if address is not None:
        _require_response(address)
    cluster, slots = (nullcontext(address), 0) if config is None else _start_cluster(config, jobs)
    with (
        silence_logging_cmgr(QUIET),
        cluster as scheduler,
        ExitStack() as stack,
        Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client,
    ):
        if shared is not None:
            token = stack.enter_context(NamedTemporaryFile(dir=shared.resolve(), prefix=MARK))
            check = partial(_check_sight, token.name)
        executor, ended = ClusterExecutor(client, check, slots), threading.Event()
        try:
            executor.require_workers()
            if not (jobs or executor.slots):
                how = f"start `dask worker {address}` on each machine, or say with --jobs how many will run at once"
                raise ClusterError(f"--dask {address}: no worker has joined; {how}")
            threading.Thread(target=_watch, args=(client, tell, ended), daemon=True).start()
            yield executor
        finally:
            ended.set()
            executor.close()


def _watch(client: Client, tell: Callable[[str], None], ended: threading.Event) -> None:
    """Tell when a cluster has no worker: its jobs then wait, for as long as it takes."""
    there = True
    with suppress(Exception):  # the scheduler is gone, which every job will say
        while not ended.is_set():
            before, there = there, bool(client.nthreads())
            if there != before and not ended.is_set():
                tell("a worker has joined" if there else NO_WORKER)
            ended.wait(LOOK_EVERY)


def _start_cluster(config: Path, jobs: int | None) -> tuple[AbstractContextManager[Any], int]:
    """Start the cluster that a file describes, with `jobs` workers or as many as the file says.

    Returns:
        The cluster, as a context that ends it, and how many calls it will run at once.
    """
    import dask

    settings = _read_config(config)
    name, bounds, written = (settings.pop(key, None) for key in ("cluster", "adaptive", "jobs"))
    package, count = CLUSTERS[name], jobs or (bounds["maximum"] if bounds else written or 1)
    batch = package == "dask_jobqueue"
    if not batch:
        settings["n_workers"] = count = jobs or settings.get("n_workers", count)
    try:
        kind = getattr(import_module(package), name)
        if batch and which(kind.job_cls.submit_command) is None:
            raise ClusterError(f"{config}: {name}: there is no `{kind.job_cls.submit_command}` here; run on a login node")
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            cluster = kind(**_over(DEFAULTS[package], settings))
        if bounds:
            cluster.adapt(**{f"{bound}_jobs" if batch else bound: number for bound, number in bounds.items()})
        elif batch:
            cluster.scale(jobs=count)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"{config}: {name}: {' '.join(str(error).split())}") from None
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"{config}: {name} could not be started: {' '.join(str(error).split())}") from None
    return cluster, int(count * settings.get("cores", settings.get("threads_per_worker", 1)))


def _over(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over defaults; those of a section over those of its default."""
    inner = {
        key: {**defaults[key], **value}
        for key, value in settings.items()
        if isinstance(defaults.get(key), Mapping) and isinstance(value, Mapping)
    }
    return {**defaults, **settings, **inner}


def _read_config(path: Path) -> dict[str, Any]:
    """Read a cluster file: the name of a class, how many workers to keep (or, adaptive, between how many), and its settings."""
    settings = _load_yaml(path)
    if not isinstance(settings, dict) or "cluster" not in settings:
        raise ParamsError(f"{path}: names no cluster; add a line such as `cluster: SLURMCluster`")
    if not all(isinstance(key, str) for key in settings):
        raise ParamsError(f"{path}: a setting's name is text, such as `jobs`")
    cluster = settings["cluster"]
    if not isinstance(cluster, str) or cluster not in CLUSTERS:
        raise ParamsError(
            f"{path}: {unknown('cluster', cluster if isinstance(cluster, str) else shortened(cluster), CLUSTERS)}"
        )
    for key in COUNTS & settings.keys():
        _require_count(path, key, settings[key], least=1)
    if "adaptive" in settings:
        bounds = settings["adaptive"]
        if not isinstance(bounds, dict) or set(bounds) != {"minimum", "maximum"}:
            raise ParamsError(f"{path}: adaptive: write both bounds, such as {{minimum: 0, maximum: 8}}")
        _require_count(path, "adaptive.minimum", bounds["minimum"], least=0)
        _require_count(path, "adaptive.maximum", bounds["maximum"], least=max(1, bounds["minimum"]))
        if vain := sorted({"jobs", "n_workers"} & settings.keys()):
            raise ParamsError(f"{path}: adaptive and {vain[0]} both say how many workers there are; leave one out")
    return settings


def _require_count(path: Path, key: str, number: object, *, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= MAX_WORKERS:
        raise ParamsError(f"{path}: {key}: {shortened(number)} is not a number of {least} or more, at most {MAX_WORKERS:,}")


def _load_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML is any tree
    """Read a YAML file, which is none of a pipe, and of no more than anybody writes."""
    try:
        if path.exists() and not path.is_file():
            raise ParamsError(f"{path}: no file; --dask-config names a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ParamsError(f"{path}: of more than {MAX_BYTES:,} bytes; --dask-config names a YAML file of a few lines")
        return YAML(typ="safe", pure=True).load(content.decode("utf-8-sig"))
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}; --dask-config names a YAML file") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ParamsError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())[:MAX_SHOWN]}") from None


def _require_response(address: str) -> None:
    """Check that somebody listens at an address; a client would go on trying, and not say what is wrong with it."""
    from distributed.comm.addressing import get_address_host_port, normalize_address

    try:
        with socket.create_connection(get_address_host_port(normalize_address(address)), timeout=CONNECT_SECONDS):
            pass
    except ValueError as error:
        raise ClusterError(f"--dask {address}: {error}; write tcp://HOST:PORT") from None
    except OSError as error:
        reason = f"{error.strerror or 'no answer'}; start `dask scheduler` there, or open its port to this machine"
        raise ClusterError(f"--dask {address}: {reason}") from None


class ClusterExecutor(Executor):
    """Runs calls on the workers of a Dask cluster, each at most once, and only on workers that pass a check.

    In the end `slots` calls will run at once, or more if more workers come.
    """

    def __init__(self, client: Client, check: Check, slots: int) -> None:
        self._client, self._check, self._slots = client, check, slots
        self._calls = client.get_executor(pure=False, retries=0)
        self._started: list[str] = []

    @property
    def slots(self) -> int:
        """Calls that the workers of this moment, or those asked for if that is more, run at once."""
        return max(self._slots, sum(dict(self._client.nthreads()).values()))

    @property
    def closed(self) -> bool:
        """Whether the scheduler was lost and has not come back."""
        return bool(self._client.status == "closed")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call on a worker. Dask's dashboard shows it by the `name` of its first argument, if that has one."""
        if self.closed:
            raise ClusterError(GONE)
        name = getattr(args[0], "name", fn.__name__) if args else fn.__name__
        key = f"{name}-{uuid.uuid4().hex}"
        self._started.append(key)
        call = self._calls.submit(_run_once, key, self._check, fn, args, kwargs, key=key)
        future: Future[T] = Future()
        future.add_done_callback(lambda ended: ended.cancelled() and self._client.status == "running" and call.cancel())
        call.add_done_callback(partial(_settle, future))
        return future

    def on_all(self, fn: Callable[..., Any], /, *args: object) -> Mapping[str, Any]:
        """Call a function at once in every worker's process, busy or not; returns {worker: result or exception}."""
        return dict(self._client.run(fn, *args, on_error="return"))

    def require_workers(self) -> None:
        """Check that the workers of this moment fit this run; those that join later fail with their first job instead.

        Raises:
            ClusterError: naming a worker that has another mhrctl, or is unfit otherwise.
        """
        for worker, theirs in self.on_all(version, "mhrctl").items():
            if theirs != __version__:
                installed = f"mhrctl {theirs}" if isinstance(theirs, str) else "no mhrctl"
                raise ClusterError(f"worker {worker} has {installed}, and this is {__version__}; install the same there")
        for worker, reason in self.on_all(self._check).items():
            if reason is not None:
                raise ClusterError(f"worker {worker} {reason}")

    def close(self) -> None:
        """End, and take the marks of what was started off the scheduler."""
        from distributed import Event

        if self._client.status == "running":  # else the scheduler is gone, and with it what it knew
            self._calls.shutdown(wait=False)
            for key in self._started:
                Event(key, self._client).clear()


def _run_once(key: str, check: Check, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """Run a call on a worker, if it is fit, unless one that is now lost has begun the call before."""
    from distributed import Event, get_worker

    begun = Event(key)
    if begun.is_set():
        raise ClusterError(LOST)
    begun.set()
    if reason := check():
        raise ClusterError(f"worker {get_worker().address} {reason}")
    return fn(*args, **kwargs)


def _check_sight(token: str) -> str | None:
    """Why this machine is no worker for a project by whose token it is known, if it is not."""
    folder = Path(token).parent
    if not Path(token).exists():
        return f"on {socket.gethostname()} does not see {folder}; mount the project there, or use --remote"
    try:
        with TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"on {socket.gethostname()} cannot write to {folder}: {error.strerror}"


def _settle(future: Future[Any], call: Future[Any]) -> None:
    """Hand on what came of a call, with Dask's reasons in words."""
    from distributed import KilledWorker

    if not future.set_running_or_notify_cancel():
        return
    if call.cancelled():
        future.set_exception(ClusterError(GONE))
    elif error := call.exception():
        future.set_exception(ClusterError(LOST) if isinstance(error, KilledWorker) else error)
    else:
        future.set_result(call.result())
