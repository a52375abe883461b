"""A fork server of a toy program, and commands that ask it, for the tests of both of its sides."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mhrctl.running.forked import FORKSERVER, address_of
from tests.running.toy import eventually

SERVER = """
import sys
from pathlib import Path
from mhrctl.running.forkserver import serve

modules = {"quick": ("json",), "slow": sys.argv[3:]}
argv = serve(Path(sys.argv[1]), int(sys.argv[2]), modules, then=lambda: setattr(sys, "once", [1 / len(sys.argv[3:])]))
exec(argv[1], {"argv": argv})
"""
"""A command is `quick PROGRAM`."""
COMMAND = """
import sys
from mhrctl.running.forked import end_like, run_forked

code = run_forked(sys.argv[1:], starts=())
end_like(99 if code is None else code)
"""
ALONE = 99
"""Exit code of a command that nobody has run for it."""


@dataclass(frozen=True)
class Serving:
    """A server, the process that it serves, and the folder of sockets."""

    server: subprocess.Popen[bytes]
    owner: subprocess.Popen[bytes]
    folder: Path
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self, **env: str) -> dict[str, str]:
        """What a command of the run has."""
        given = {"DVC_STAGE": "toy", FORKSERVER: str(self.owner.pid), "MHRCTL_DEVICE": "cpu", "TMPDIR": str(self.folder)}
        return {**os.environ, **given, **env}

    def begin(
        self, program: str, *, cwd: Path | None = None, pass_fds: tuple[int, ...] = (), **env: str
    ) -> subprocess.Popen[str]:
        """Start a command that asks the server to run a program."""
        command = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "quick", program],
            cwd=cwd,
            env=self.environment(**env),
            pass_fds=pass_fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(command)
        return command

    def run(self, program: str, **options: object) -> tuple[int, str, str]:
        """Run a command to its end: exit code, output, errors."""
        process = self.begin(program, **options)  # type: ignore[arg-type]
        out, err = process.communicate("typed", timeout=60)
        return process.returncode, out, err


@contextmanager
def serving(*modules: str, **env: str) -> Iterator[Serving]:
    """Serve an owner that does nothing, with some modules imported beside."""
    folder = Path(tempfile.mkdtemp(prefix="fork-", dir="/tmp"))  # the name of a socket must be short
    owner = subprocess.Popen(["sleep", "300"])
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        address = address_of(owner.pid)
        given = {"DVC_STAGE": "first", FORKSERVER: str(owner.pid), "MHRCTL_DEVICE": "cpu", "TMPDIR": str(folder)}
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(address), str(owner.pid), *modules],
            env={**os.environ, **given, **env},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(lambda: address.exists() or server.poll() is not None, "a server listens")
        run = Serving(server, owner, folder)
        yield run
        for command in run.begun:
            command.kill()
            command.communicate()
    finally:
        tempfile.tempdir = before
        for process in (owner, server):
            process.kill()
            process.wait()
        shutil.rmtree(folder)
