"""A stage's command as a job that outlives whoever started it.

A job is a small shell, the keeper, in a session of its own. It holds a `flock` as long as any process of the job lives, and it
writes the command's exit code to a file. So the next scheduler can tell a job that lives (the lock is taken), one that has
ended (an exit code), and one that was killed (neither). Nothing here imports DVC or torch: workers import this module alone.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from mhrctl.artifacts.writing import write_json
from mhrctl.errors import ArtifactError

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
POLL = 0.2  # seconds between looks at a job's files
DIED = -int(signal.SIGKILL)  # what a job without an exit code counts as
NUMBER = re.compile(r"\d{1,10}", re.ASCII)  # an exit code, or the group of a process
OUTDATED = 75  # exit code of a job that a newer one of the same stage has replaced before it began

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
    """A stage's command, and where it runs."""

    name: str  # address of the stage
    script: str  # shell text
    cwd: str
    env: dict[str, str]  # what is set over the environment of `mhrctl run`, or of the worker
    folder: str  # where its files lie
    ticket: str = ""  # tells this start of the stage from others, if the `Record` is to say which of them counts


@dataclass(frozen=True)
class Record:
    """What a scheduler notes of a job before it starts it."""

    key: str  # hash of the stage's command, dependencies and parameters
    slots: dict[str, float]  # {slot: share} that the job takes
    wrote: str = ""  # fingerprint of its outputs, noted before they are recorded
    ticket: str = field(default_factory=lambda: secrets.token_hex(8))  # of the `Job` that counts
    started: float = field(default_factory=time.time)  # seconds since the epoch


class JobFiles:
    """The files of one stage's job."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        start = f"{folder}/{quote(name, safe='@')}"
        self.log = Path(f"{start}.log")  # output and errors of the command
        self.code = Path(f"{start}.rc")  # exit code, there once the command has ended
        self.lock = Path(f"{start}.flock")  # locked as long as the job lives
        self.process = Path(f"{start}.pid")  # host and process group
        self.stop = Path(f"{start}.stop")  # there when the job is to end: `term`, or `kill` for at once
        self.record = Path(f"{start}.json")  # the `Record`, there until the stage's result is in dvc.lock

    def settle(self) -> None:
        """Remove what is of use only until the result is recorded."""
        for path in (self.record, self.code, self.process, self.stop):
            path.unlink(missing_ok=True)


def require_job_files(folder: Path) -> None:
    """Check that a folder of jobs holds files alone: a pipe would be waited for, a link written through.

    Raises:
        ArtifactError: naming what is none.
    """
    for path in sorted(folder.iterdir()):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ArtifactError(f"{path}: no file, where only files of jobs belong; remove it and run again")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a project, whose files lie in a folder, until the block ends or this process does.

    Raises:
        ArtifactError: if another run is in progress, or what lies in the folder is no file.
    """
    require_job_files(folder)
    with (folder / "run.lock").open("a+", errors="replace") as lock:
        if not _try_lock(lock):
            lock.seek(0)
            raise ArtifactError(f"another `mhrctl run` works on this project ({lock.read().strip()}): wait for it, or end it")
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def run_job(job: Job) -> int:
    """Run a job to its end, on a thread, process or node that sees its folder; earlier jobs of its stage end first.

    Returns:
        The exit code; negative for a signal that killed the keeper, or if the job was asked to stop before it began.
    """
    files = JobFiles(Path(job.folder), job.name)
    with files.lock.open("a") as lock:
        while not _try_lock(lock) and not files.stop.exists():
            time.sleep(POLL)
        if files.stop.exists():
            return -signal.SIGTERM
        record = read_record(files)
        if job.ticket and (record is None or record.ticket != job.ticket):
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
    """Wait for a job that another scheduler started, and return its exit code, or `DIED`."""
    files = JobFiles(Path(folder), name)
    while is_alive(files):
        host, _, group = _read(files.process).strip().partition(" ")
        if files.stop.exists() and _number(group) is not None and host == socket.gethostname():
            _end(int(group), files)
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
    """The exit code of a job that has ended by itself; a rotten one is none, so that the job runs again."""
    return _number(_read(files.code).strip())


def ask_to_stop(files: JobFiles, *, hard: bool = False) -> None:
    """Ask whoever attends a job to end it: by SIGTERM and, after `GRACE` seconds, SIGKILL; at once if `hard`."""
    files.stop.write_text("kill" if hard else "term")


def read_wish(files: JobFiles) -> str:
    """How a job is to end: `term`, or `kill` for at once; empty if it is not."""
    return _read(files.stop)


def write_record(files: JobFiles, record: Record) -> None:
    """Note a job before it starts."""
    write_json(files.record, asdict(record))


def read_record(files: JobFiles) -> Record | None:
    """The note of a job whose result is not recorded yet; a rotten one is set aside, and the job runs again."""
    text = _read(files.record)
    if not text:
        return None
    try:
        return _record_of(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        with suppress(OSError):
            files.record.replace(files.record.with_name(f"{files.record.name}.rotten"))
        return None


def ticketed(job: Job, record: Record) -> Job:
    """The job as this start of its stage."""
    return replace(job, ticket=record.ticket)


def unfinished(folder: Path) -> Mapping[str, Record]:
    """{job: note} of the jobs that live, whoever started them."""
    all_files = [JobFiles(folder, unquote(path.stem)) for path in sorted(folder.glob("*.json"))]
    return {files.name: record for files in all_files if is_alive(files) and (record := read_record(files))}


def _read(path: Path) -> str:
    """The text of a file; empty if there is none."""
    with suppress(OSError):
        return path.read_text(errors="replace") if path.is_file() else ""
    return ""


def _record_of(tree: Any) -> Record:  # noqa: ANN401 - JSON is any tree
    """The note that a tree is of; `ValueError` or `TypeError` if it is of none."""
    record = Record(**tree)
    kinds: dict[str, type | tuple[type, ...]] = {
        "key": str,
        "slots": dict,
        "wrote": str,
        "ticket": str,
        "started": (int, float),
    }
    if not all(isinstance(getattr(record, name), kind) for name, kind in kinds.items()) or not 0 <= record.started < math.inf:
        raise ValueError("no note of a job")
    if not all(isinstance(share, int | float) and 0 < share <= 1 for share in record.slots.values()):
        raise ValueError("no shares of slots")
    return record


def _number(text: str) -> int | None:
    """The number that a keeper has written; None if it is none."""
    return int(text) if NUMBER.fullmatch(text) else None


def _try_lock(lock: IO[str]) -> bool:
    """Take the lock of an open file, unless another has it; closing the file gives it back."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _attend(process: subprocess.Popen[bytes], files: JobFiles) -> int:
    """Wait for a job's end, or for the wish to end it; what it leaves in the background ends with it."""
    while process.poll() is None and not files.stop.exists():
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    _end(process.pid, files, process.poll)  # the keeper would stay in the group as a zombie if nobody asked for its exit code
    code = process.wait()
    _end(process.pid, files)  # what was killed takes a moment to go, and holds the lock as long
    return code


def _end(group: int, files: JobFiles, reap: Callable[[], object] = lambda: None) -> None:
    """End the processes of a group: SIGTERM, then SIGKILL after `GRACE` seconds or when the stop file says so."""
    deadline = time.monotonic() + GRACE
    alive = _signal(group, signal.SIGTERM)
    while alive and time.monotonic() < deadline and read_wish(files) != "kill":
        time.sleep(POLL / 4)
        reap()
        alive = _signal(group, 0)
    if alive:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Signal a process group; False if there is none."""
    if group <= 1:  # 0 is this process's own group, and 1 everything there is
        return False
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
