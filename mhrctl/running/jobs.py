"""A stage's command as a job that outlives whoever started it.

A job is a small shell, the keeper, in a session of its own. It holds a `flock` as long as any process of the job lives, and it
writes the command's exit code to a file. So a scheduler that finds the files of a dead one can tell a job that lives (the lock
is taken), one that has ended (an exit code), and one that was killed (neither). All of it works over a shared file system that
has `flock`, and nothing here imports DVC or torch: a worker anywhere imports this module alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from mhrctl.artifacts import write_json
from mhrctl.errors import ArtifactError

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.2
"""Seconds between looks at a job's files."""
DIED = -int(signal.SIGKILL)
"""What a job without an exit code counts as."""
OUTDATED = 75
"""Exit code of a job that a newer one of the same stage has replaced before it began."""
TICKET = "MHRCTL_TICKET"
"""Variable that tells a job which start of its stage it is."""

# $1 exit code file, $2 process file, $3 host, $4 script. Signals to the group end the script; the keeper lives on for its code.
KEEPER = """\
trap : INT TERM
echo "$3 $$" > "$2"
( eval "$4" )
code=$?
echo "$code" > "$1.partial" && mv "$1.partial" "$1"
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """A command and where it runs.

    Attributes:
        name: address of the stage.
        script: shell text of the stage's command.
        cwd: the folder it runs in.
        env: what is set over the worker's environment.
        folder: where its files lie.
    """

    name: str
    script: str
    cwd: str
    env: dict[str, str]
    folder: str


@dataclass(frozen=True)
class Record:
    """What a scheduler notes of a job before it starts it.

    Attributes:
        key: hash of the stage's command, dependencies and parameters.
        slots: {slot: share} that the job takes.
        wrote: fingerprint of its outputs, noted before they are recorded.
        ticket: tells this start of the stage from others.
        started: seconds since the epoch.
    """

    key: str
    slots: dict[str, float]
    wrote: str = ""
    ticket: str = field(default_factory=lambda: secrets.token_hex(8))
    started: float = field(default_factory=time.time)


class JobFiles:
    """The files of one stage's job.

    Attributes:
        log: output and errors of the command.
        code: exit code, there once the command has ended.
        lock: locked as long as the job lives.
        process: host and process group.
        stop: there when the job is to end: `term`, or `kill` for at once.
        record: the `Record`, there until the stage's result is in dvc.lock.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        stem = quote(name, safe="@")
        self.log, self.code, self.lock = (folder / f"{stem}.{suffix}" for suffix in ("log", "rc", "flock"))
        self.process, self.stop, self.record = (folder / f"{stem}.{suffix}" for suffix in ("pid", "stop", "json"))

    def clear(self) -> None:
        """Remove what an earlier job left, but for the lock."""
        self.log.unlink(missing_ok=True)
        self.settle()

    def settle(self) -> None:
        """Remove what is of use only until the result is recorded."""
        for path in (self.record, self.code, self.process, self.stop):
            path.unlink(missing_ok=True)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a project until the block ends, or this process does.

    Args:
        folder: where the runs of a project keep their files.

    Raises:
        ArtifactError: if another run is in progress.
    """
    with (folder / "run.lock").open("a+") as lock:
        if not _try_lock(lock):
            lock.seek(0)
            raise ArtifactError(f"another `mhrctl run` works on this project ({lock.read().strip()}): wait for it, or end it")
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def run_job(job: Job) -> int:
    """Run a job to its end, on a thread, process or node that sees its folder.

    It waits for an earlier job of the same stage, and ends its own when it is asked to (`ask_to_stop`).

    Returns:
        The exit code; negative for a signal that killed the keeper.
    """
    files = JobFiles(Path(job.folder), job.name)
    with files.lock.open("a") as lock:
        if not _hold(lock, files):
            return -signal.SIGTERM
        if not _is_current(job, files):
            return OUTDATED
        with files.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - running the user's commands is the purpose
                ["/bin/sh", "-c", KEEPER, "mhrctl", str(files.code), str(files.process), socket.gethostname(), job.script],
                cwd=job.cwd,
                env={**os.environ, **job.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        return _attend(process, files)


def wait_job(folder: str, name: str) -> int:
    """Wait for a job that another scheduler started.

    Returns:
        The exit code, or `DIED`.
    """
    files = JobFiles(Path(folder), name)
    while is_alive(files):
        if files.stop.exists() and (group := _group_here(files)):
            _end(group, files)
        time.sleep(POLL)
    code = exit_code(files)
    return DIED if code is None else code


def is_alive(files: JobFiles) -> bool:
    """Whether any process of the job lives."""
    try:
        with files.lock.open("r+") as lock:
            return not _try_lock(lock)
    except FileNotFoundError:
        return False


def exit_code(files: JobFiles) -> int | None:
    """The exit code of a job that has ended by itself."""
    text = _read(files.code)
    return int(text) if text else None


def ask_to_stop(files: JobFiles, *, hard: bool = False) -> None:
    """Ask whoever attends a job to end it: by SIGTERM and, after `GRACE` seconds, SIGKILL; at once if `hard`."""
    files.stop.write_text("kill" if hard else "term")


def write_record(files: JobFiles, record: Record) -> None:
    """Note a job before it starts."""
    write_json(files.record, asdict(record))


def read_record(files: JobFiles) -> Record | None:
    """The note of a job whose result is not recorded yet."""
    try:
        return Record(**json.loads(files.record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def ticketed(job: Job, record: Record) -> Job:
    """The job as this start of its stage."""
    return replace(job, env={**job.env, TICKET: record.ticket})


def unfinished(folder: Path) -> Mapping[str, Record]:
    """{job: note} of the jobs that live, whoever started them."""
    all_files = [JobFiles(folder, unquote(path.stem)) for path in sorted(folder.glob("*.json"))]
    return {files.name: record for files in all_files if is_alive(files) and (record := read_record(files))}


def tail(path: Path, lines: int = 10) -> list[str]:
    """The last lines of a log."""
    with suppress(OSError), path.open(errors="replace") as stream:
        return [line.rstrip("\n") for line in deque(stream, lines)]
    return []


def _read(path: Path) -> str:
    """The text of a file; empty if there is none."""
    with suppress(OSError):
        return path.read_text()
    return ""


def _try_lock(lock: IO[str]) -> bool:
    """Take the lock of an open file, unless another has it; closing the file gives it back."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _hold(lock: IO[str], files: JobFiles) -> bool:
    """Take the lock once an earlier job of the stage has let go; False if this one is asked to stop first."""
    while not (held := _try_lock(lock)) and not files.stop.exists():
        time.sleep(POLL)
    return held and not files.stop.exists()


def _is_current(job: Job, files: JobFiles) -> bool:
    """Whether no later start of the stage has replaced this one, while it waited for a worker or for the lock."""
    record = read_record(files)
    return TICKET not in job.env or (record is not None and record.ticket == job.env[TICKET])


def _attend(process: subprocess.Popen[bytes], files: JobFiles) -> int:
    """Wait for a job's end, or for the wish to end it; what it leaves in the background ends with it."""
    while process.poll() is None and not files.stop.exists():
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    _end(process.pid, files, process.poll)  # which would stay in the group as a zombie if nobody asked for its exit code
    return process.wait()


def _end(group: int, files: JobFiles, reap: Callable[[], object] = lambda: None) -> None:
    """End the processes of a group: SIGTERM, then SIGKILL after `GRACE` seconds or when the stop file says so."""
    deadline = time.monotonic() + GRACE
    alive = _signal(group, signal.SIGTERM)
    while alive and time.monotonic() < deadline and _read(files.stop) != "kill":
        time.sleep(POLL / 4)
        reap()
        alive = _signal(group, 0)
    if alive:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Signal a process group; False if there is none."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _group_here(files: JobFiles) -> int | None:
    """The process group of a job that runs on this host."""
    host, _, group = _read(files.process).strip().partition(" ")
    return int(group) if group and host == socket.gethostname() else None
