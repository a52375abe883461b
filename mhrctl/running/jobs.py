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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from mhrctl.artifacts.writing import write_json

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


@dataclass(frozen=True)
class JobFiles:
    """The files of one stage's job."""

    folder: Path
    name: str

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{quote(self.name, safe='@')}.{suffix}"

    @property
    def log(self) -> Path:
        """Output and errors of the command."""
        return self._path("log")

    @property
    def code(self) -> Path:
        """Exit code, there once the command has ended."""
        return self._path("rc")

    @property
    def lock(self) -> Path:
        """Locked as long as the job lives."""
        return self._path("flock")

    @property
    def process(self) -> Path:
        """Host and process group."""
        return self._path("pid")

    @property
    def stop(self) -> Path:
        """There when the job is to end: `term`, or `kill` for at once."""
        return self._path("stop")

    @property
    def record(self) -> Path:
        """The `Record`, there until the stage's result is in dvc.lock."""
        return self._path("json")

    def clear(self) -> None:
        """Remove what an earlier job left, but for the lock."""
        for path in (self.log, self.code, self.process, self.stop, self.record):
            path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Remove what is of use only until the result is recorded."""
        for path in (self.record, self.code, self.process, self.stop):
            path.unlink(missing_ok=True)


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
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def exit_code(files: JobFiles) -> int | None:
    """The exit code of a job that has ended by itself."""
    with suppress(OSError, ValueError):
        return int(files.code.read_text())
    return None


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
    found = {}
    for path in sorted(folder.glob("*.json")):
        files = JobFiles(folder, unquote(path.stem))
        if is_alive(files) and (record := read_record(files)):
            found[files.name] = record
    return found


def tail(path: Path, lines: int = 10) -> list[str]:
    """The last lines of a log."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 200 * lines))
            return stream.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _hold(lock: IO[str], files: JobFiles) -> bool:
    """Take the lock once an earlier job of the stage has let go; False if this one is asked to stop first."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if files.stop.exists():
                return False
            time.sleep(POLL)
        else:
            return not files.stop.exists()


def _is_current(job: Job, files: JobFiles) -> bool:
    """Whether no later start of the stage has replaced this one, while it waited for a worker or for the lock."""
    if TICKET not in job.env:
        return True
    record = read_record(files)
    return record is not None and record.ticket == job.env[TICKET]


def _attend(process: subprocess.Popen[bytes], files: JobFiles) -> int:
    """Wait for a job's end; what it leaves in the background ends with it."""
    while True:
        try:
            code = process.wait(POLL)
        except subprocess.TimeoutExpired:
            if files.stop.exists():
                _end(process.pid, files, process.poll)
        else:
            _end(process.pid, files)
            return code


def _end(group: int, files: JobFiles, reap: Callable[[], object] = lambda: None) -> None:
    """End the processes of a group: SIGTERM, then SIGKILL after `GRACE` seconds or when the stop file says so."""
    deadline = time.monotonic() + GRACE
    alive = _signal(group, signal.SIGTERM)
    while alive and time.monotonic() < deadline and not _wants_kill(files):
        time.sleep(POLL / 4)
        reap()
        alive = _signal(group, 0)
    if alive:
        _signal(group, signal.SIGKILL)


def _wants_kill(files: JobFiles) -> bool:
    with suppress(OSError):
        return files.stop.read_text() == "kill"
    return False


def _signal(group: int, number: int) -> bool:
    """Signal a process group; False if there is none."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _group_here(files: JobFiles) -> int | None:
    """The process group of a job that runs on this host."""
    with suppress(OSError, ValueError):
        host, group = files.process.read_text().split()
        if host == socket.gethostname():
            return int(group)
    return None
