"""The server of a run imports everything once, and forks a process for each command that asks (see `forked.py`).

It forks only where nothing was begun that a fork would not have: no threads, no files, no GPU. It ends with the run that it
serves, once the commands that it has forked have ended; it never outlives a run that was killed by more than these.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mhrctl.running.forked import MOST_FILES, PASSED_ON, surroundings
from mhrctl.running.machine import THREADS, thread_environment

IDLE = 600.0  # seconds without a command after which a server ends, should its run not be seen to end
FORKED_TOO = {"jemalloc_bg_thd"}
"""Threads that see to it themselves that a fork finds everything in order: that of pyarrow's memory allocator."""
READING = 5.0  # seconds that a command may take to say what it is


@dataclass(frozen=True)
class Request:
    """What a command asks for."""

    connection: socket.socket
    argv: list[str]
    cwd: str
    env: dict[str, str]
    files: dict[int, int]  # {number that a file is to have: the number that it has here}
    ignored: list[int]  # signals


@dataclass
class Server:
    """A server forks the commands of a run."""

    address: Path
    listener: socket.socket
    owner: int  # a descriptor of the run's process
    loaded: set[str] = field(default_factory=set)  # commands whose modules are there
    complete: bool = False  # whether all is loaded that there is to load

    def __post_init__(self) -> None:
        self._listening = True
        self._surroundings = json.loads(json.dumps(surroundings()))
        self._waiting: list[Request] = []
        self._children: dict[int, tuple[int, socket.socket]] = {}  # {descriptor of a process: its ID, whom to tell its end}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ)
        self._selector.register(self.owner, selectors.EVENT_READ)

    def turn(self, timeout: float) -> list[str] | None:
        """Wait for something to happen, and see to it.

        Returns:
            In a process that was forked, the command line that it is to run.
        """
        events = self._selector.select(timeout)
        if not events and timeout and not self._children:
            self.stop()
        for key, _ in events:
            if key.fileobj is self.listener:
                self._listen()
            elif key.fileobj == self.owner:
                self.stop()
            elif key.fd in self._children:
                self._ended(key.fd)
            elif key.data in self._children:  # a command says nothing more: it was killed, and what it stands for goes with it
                self._selector.unregister(key.fileobj)
                with suppress(ProcessLookupError):
                    os.killpg(self._children[key.data][0], signal.SIGKILL)
        for request in [request for request in self._waiting if self.complete or request.argv[0] in self.loaded]:
            self._waiting.remove(request)
            if self._fork(request):
                return request.argv
        return None

    def _listen(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(READING)
        try:
            request = _read(connection, self._surroundings)
        except (OSError, ValueError, KeyError, TypeError):
            request = None
        if request:
            self._waiting.append(request)
        else:
            connection.close()

    def _fork(self, request: Request) -> bool:
        """Fork a process for a command; returns whether this is that process."""
        process = os.fork()
        if process == 0:
            self._become(request)
            return True
        with suppress(OSError):
            os.setpgid(process, process)  # whichever of the two is first
        for number in request.files.values():
            os.close(number)
        descriptor = os.pidfd_open(process)
        self._children[descriptor] = process, request.connection
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(request.connection, selectors.EVENT_READ, data=descriptor)
        _tell(request.connection, process)
        return False

    def _become(self, request: Request) -> None:
        """Make this process what a shell would have started: its files, folder, environment, signals."""
        os.setpgid(0, 0)
        self._selector.close()
        for descriptor, (_, connection) in self._children.items():
            os.close(descriptor)
            connection.close()
        for other in self._waiting:
            other.connection.close()
            for number in other.files.values():
                os.close(number)
        for held in (self.listener, request.connection):
            held.close()
        os.close(self.owner)
        _place(request.files)
        os.chdir(request.cwd)
        os.environ.clear()
        os.environ.update(request.env)
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_IGN if number in request.ignored else signal.SIG_DFL)
        if signal.SIGINT not in request.ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]

    def _ended(self, descriptor: int) -> None:
        process, connection = self._children.pop(descriptor)
        self._selector.unregister(descriptor)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        _tell(connection, code)
        connection.close()
        if not self._listening and not self._children:
            os._exit(0)

    def stop(self) -> None:
        """Take no more commands, and end with the last of those that were forked."""
        if self._listening:
            self._listening = False
            self._selector.unregister(self.owner)
            self._selector.unregister(self.listener)
            self.address.unlink(missing_ok=True)
            self.listener.close()
            for request in self._waiting:
                request.connection.close()
            self._waiting.clear()
        if not self._children:
            os._exit(0)


def serve(
    address: Path, owner: int, modules: Mapping[str, Sequence[str]], *, then: Callable[[], object] = lambda: None
) -> list[str]:
    """Serve a run until it ends.

    Args:
        address: the socket to listen at.
        owner: the run's process ID.
        modules: {command: modules to import}, in their order; a command is served as soon as those of it are there.
        then: what else each process would do once, whose failure is no matter.

    Returns:
        In each process that was forked, the command line that it is to run; in the server, nothing returns.
    """
    server = Server(address, _listener(address), os.pidfd_open(owner))  # with the surroundings as the run has them
    os.environ.update(thread_environment(int(os.environ.get(THREADS, "1"))))
    for command, names in modules.items():
        if not _import_plainly(names):
            server.stop()
            break
        server.loaded.add(command)
        if argv := server.turn(0):
            return argv
    with suppress(Exception):
        then()
    gc.collect()
    gc.freeze()  # a collection would write to what it looks at, and so copy all that forks have in common
    server.complete = True
    while True:
        if argv := server.turn(IDLE):
            return argv


def _import_plainly(modules: Sequence[str]) -> bool:
    """Import modules; returns whether they could be, and nothing was begun with them that a fork would not have."""
    before = _open_files()
    try:
        for name in modules:
            importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever it is, the command that needs the module says it
        return False
    threads = {
        path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm") if path.parent.name != str(os.getpid())
    }
    untouched = "libcuda.so" not in Path("/proc/self/maps").read_text()
    return threads <= FORKED_TOO and _open_files() == before and untouched


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _listener(address: Path) -> socket.socket:
    """A socket that listens, under a name that it has only from then on; the process ends here if another does already."""
    listener, aside = socket.socket(socket.AF_UNIX), address.with_suffix(f".{os.getpid()}")
    aside.unlink(missing_ok=True)
    listener.bind(str(aside))
    listener.listen(128)
    try:
        try:
            address.hardlink_to(aside)
        except FileExistsError:
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(address)) == 0:
                    aside.unlink()
                    os._exit(0)
            address.unlink(missing_ok=True)  # of a server that was killed
            address.hardlink_to(aside)
    finally:
        aside.unlink(missing_ok=True)
    return listener


def _read(connection: socket.socket, expected: Any) -> Request | None:  # noqa: ANN401
    """Read what a command asks for; None if it would find other surroundings here than those that it has."""
    _, files, _, _ = socket.recv_fds(connection, 1, MOST_FILES)
    with connection.makefile("rb") as lines:
        tree = json.loads(lines.readline())
    if tree["surroundings"] != expected or len(files) != len(tree["files"]):
        for number in files:
            os.close(number)
        return None
    return Request(
        connection, tree["argv"], tree["cwd"], tree["env"], dict(zip(tree["files"], files, strict=True)), tree["ignored"]
    )


def _place(files: Mapping[int, int]) -> None:
    """Give files the numbers that they are to have."""
    above = max([*files, *files.values()]) + 1
    aside: dict[int, int] = {}
    for number, here in files.items():
        aside[number] = os.dup2(here, above + len(aside))
        os.close(here)
    for number, here in aside.items():
        os.dup2(here, number)
        os.close(here)


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(OSError):
        connection.sendall(f"{number}\n".encode())
