"""A command that DVC or `mhrctl run` starts asks their fork server for a process that has imported everything.

Importing torch and transformers takes longer than many a stage. So the first stage of a run leaves a server behind
(`forkserver.py`), which lives as long as the run does; later ones send it their command line, environment, folder and open
files, and stand for the process that it forks: they pass signals on, end as it ends, and it ends if they are killed. Nothing
but the standard library is imported here, for this is what each command begins with.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

FORKSERVER = "MHRCTL_FORKSERVER"
"""This environment variable is `off` where commands are to start by themselves, or the process ID of their `mhrctl run`."""
SERVE = "--forkserver"
"""By this first argument `python -m mhrctl` is a server."""
OFF = "off"
PER_JOB = {"CUDA_VISIBLE_DEVICES", "DVC_STAGE", "OLDPWD", "PWD", "SHLVL", "_"}
"""Variables that nothing reads while it is imported, so that they may differ between a command and the server that it asks."""
READ_IN_TIME = "MHRCTL_"
"""Variables of these names are read by commands as they run, but for `MHRCTL_THREADS`, after which libraries are loaded."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
MOST_FILES = 250  # that one message can pass on
PATIENCE = 20.0  # seconds until a server that was started is there
POLL = 0.01
STAGE_OPTIONS = ("--threads",)  # libraries that are loaded have their threads already


def run_forked(argv: Sequence[str], *, starts: Collection[str]) -> int | None:
    """Run a command in a process of the fork server, if it is a stage's and there is one.

    Args:
        argv: the command line.
        starts: commands that start a server if there is none.

    Returns:
        The exit code, negative for a signal that ended it; None if nothing was done, and the command is to run here.
    """
    owner, waits = _owner()
    if owner is None or not argv or any(word.startswith(STAGE_OPTIONS) for word in argv):
        return None
    try:
        address = address_of(owner)
        connection = _connect(address)
        if connection is None:
            if argv[0] not in starts:
                return None
            server = _start(address, owner)
            connection = _await(address, server) if waits else None
        return None if connection is None else _stand_for(connection, argv)
    except OSError:  # no such folder, too many files, a server that has just ended: whatever it is, there is the usual way
        return None


def end_like(code: int) -> NoReturn:
    """End this process as another has ended: with its exit code, or by its signal if that is negative."""
    if code < 0:
        with suppress(OSError):  # nobody but the kernel handles SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def surroundings() -> list[Any]:
    """Return what a process takes from the one that starts it, and libraries read while they are imported."""
    kept = {key: value for key, value in os.environ.items() if key not in PER_JOB and not _is_read_in_time(key)}
    umask = os.umask(0o077)
    os.umask(umask)
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    namespaces = sorted(str(path.readlink()) for path in Path("/proc/self/ns").iterdir())
    who = [os.geteuid(), os.getegid(), os.getgroups()]
    turns = [os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]
    return [kept, umask, limits, namespaces, who, turns, sys.version, sys.prefix, __file__]


def address_of(owner: int) -> Path:
    """Return the socket at which the server of a run listens, in a folder that nobody else may enter.

    Raises:
        OSError: if there is no such process, or the folder is another user's.
    """
    folder = Path(tempfile.gettempdir(), f"mhrctl-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(folder)
    began = Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[19]  # process IDs are used again
    return folder / f"{owner}-{began}.sock"


def _is_read_in_time(variable: str) -> bool:
    return variable.startswith(READ_IN_TIME) and variable != "MHRCTL_THREADS"


def _owner() -> tuple[int | None, bool]:
    """The run that this command is of, and whether it waits for the run's server; None where there can be none.

    Where a GPU may be, each process starts by itself: CUDA cannot be used in a fork of a process that has touched it.
    """
    named = os.environ.get(FORKSERVER, "")
    if "DVC_STAGE" not in os.environ or named == OFF or not hasattr(os, "pidfd_open") or "WORLD_SIZE" in os.environ:
        return None, False
    if os.environ.get("MHRCTL_DEVICE") != "cpu":
        from mhrctl.running.machine import may_have_gpu

        if may_have_gpu():
            return None, False
    if named:
        return (int(named), True) if named.isascii() and named.isdecimal() else (None, False)
    return _dvc(), False


def _dvc() -> int | None:
    """The `dvc` that this command is a stage of: the first process above that DVC has not named a stage to."""
    process = os.getppid()
    with suppress(OSError, ValueError, IndexError):
        while process > 1:
            folder = Path(f"/proc/{process}")
            if b"DVC_STAGE=" not in folder.joinpath("environ").read_bytes():
                words = folder.joinpath("cmdline").read_bytes().split(b"\0")
                return process if any(Path(os.fsdecode(word)).name == "dvc" for word in words[:4]) else None
            process = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    return None


def _connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start(address: Path, owner: int) -> subprocess.Popen[bytes]:
    """Start a server, which holds nothing of this process and outlives it."""
    return subprocess.Popen(  # noqa: S603 - this very program
        [sys.executable, "-P", "-m", "mhrctl", SERVE, str(address), str(owner)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await(address: Path, server: subprocess.Popen[bytes]) -> socket.socket | None:
    """Connect to a server as soon as it listens; None if it has given up, as where another was quicker and has ended since."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if connection := _connect(address):
            return connection
        if server.poll() is not None:
            return _connect(address)
        time.sleep(POLL)
    return None


def _stand_for(connection: socket.socket, argv: Sequence[str]) -> int | None:
    """Have a command run by the server, and stand for its process until it ends."""
    files = _open_files(connection)
    request = {
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "env": dict(os.environ),
        "files": files,
        "ignored": [number for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN],
        "surroundings": surroundings(),
    }
    with connection, _Answers(connection) as answers:
        with _put_off({*PASSED_ON, signal.SIGTSTP}):  # which the process may be sent as soon as it begins
            try:
                socket.send_fds(connection, [b"!"], files)
                connection.sendall(json.dumps(request).encode() + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                return None
            group = answers.number()
            if group is None:
                return None
            _pass_signals_on(group)
        code = answers.number()
        if code is None:  # the server was killed: its processes are this command's to end
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        return -signal.SIGKILL if code is None else code


@contextmanager
def _put_off(signals: Collection[int]) -> Iterator[None]:
    """Signals that come meanwhile are heard afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Answers:
    """The numbers that a server says, waited for so that a signal is heard even if it comes just before the wait."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._rest = connection, b""
        self._heard, self._hears = socket.socketpair()
        self._hears.setblocking(False)

    def __enter__(self) -> Self:
        self._before = signal.set_wakeup_fd(self._hears.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave signals as they were: where the server has gone, this process does the command itself."""
        signal.set_wakeup_fd(self._before)
        self._heard.close()
        self._hears.close()

    def number(self) -> int | None:
        """The next number; None if the server has been killed."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._connection, self._heard], [], [])
            if self._heard in ready:
                self._heard.recv(4096)  # the handler of the signal has run by then
            if self._connection in ready:
                said = b""
                with suppress(ConnectionResetError):
                    said = self._connection.recv(4096)
                if not said:
                    return None
                self._rest += said
        line, _, self._rest = self._rest.partition(b"\n")
        return int(line)


def _open_files(but: socket.socket) -> list[int]:
    """The open files of this process, a job's lock among them, which all of the job's processes hold."""
    listed = sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())
    files = [number for number in listed if number != but.fileno() and _is_open(number)]
    if files[:3] != [0, 1, 2] or len(files) > MOST_FILES:
        raise OSError(f"{len(files)} open files")
    return files


def _is_open(number: int) -> bool:
    """Whether a file is open, and not that by which the open files were listed."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _pass_signals_on(group: int) -> None:
    """Give a process group what is asked of this process; a stop stops both."""

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
        with suppress(ProcessLookupError):
            os.killpg(group, number)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.killpg(group, signal.SIGCONT)

    handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(PASSED_ON, pass_on)
    for number, handler in (handlers | {signal.SIGTSTP: stop}).items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
