"""A server that has imported everything forks a child for each command, so that a command takes a tenth of a second.

It runs as a process of its own (`python -m tests.robustness.forking`), since a fork of pytest would carry its threads along. It
reads a request a line and answers a line. Children write to files, are killed at their time limit, and may be killed earlier or
patched on request.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from typer.main import get_command

import mhrctl
from mhrctl.__main__ import main
from mhrctl.cli.app import app

LIBRARIES = (
    "accelerate",
    "matplotlib.figure",
    "matplotlib.style",
    "PIL.features",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "rouge_score.rouge_scorer",
    "sklearn.feature_extraction.text",
    "torch",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.mbart.modeling_mbart",
    "transformers.models.t5.modeling_t5",
)
GIGABYTE = 2**30
MEMORY = 12 * GIGABYTE
"""So much more address space than the server has a command may take: one that wants more is answered with a MemoryError."""


def serve() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rooms = [room.name for room in pkgutil.walk_packages(mhrctl.__path__, "mhrctl.") if not room.name.endswith("__main__")]
    for name in (*LIBRARIES, *rooms):
        importlib.import_module(name)
    get_checkpoint_conversion_mapping("t5")  # compiles hundreds of regular expressions, once a process
    get_command(app)
    gc.freeze()
    _answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        _answer(together(request["jobs"], request["limit"]))


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def together(jobs: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """Run jobs at once, each in a child, and say how each ended."""
    began = time.monotonic()
    waiting = sorted(enumerate(jobs), key=lambda pair: pair[1].get("start", 0.0))
    living: dict[int, int] = {}
    ended: dict[int, dict[str, Any]] = {}
    signalled: set[int] = set()
    while waiting or living:
        now = time.monotonic() - began
        while waiting and waiting[0][1].get("start", 0.0) <= now:
            number, job = waiting.pop(0)
            living[_fork(job)] = number
        for pid, number in list(living.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del living[pid]
                ended[number] = {"code": os.waitstatus_to_exitcode(status), "hung": False, "seconds": now}
            elif now > limit + jobs[number].get("start", 0.0):
                _end(pid)
                del living[pid]
                ended[number] = {"code": -signal.SIGKILL, "hung": True, "seconds": now}
            elif number not in signalled and "kill" in jobs[number]:
                which, after = jobs[number]["kill"]
                if now >= after + jobs[number].get("start", 0.0):
                    os.kill(pid, which)
                    signalled.add(number)
        time.sleep(0.002)
    return [ended[number] for number in range(len(jobs))]


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _command(job)
    finally:
        os._exit(code)


def _command(job: dict[str, Any]) -> int:
    """Be the command: what Python does around `main()`, with an exit code at the end."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, name in ((1, "out"), (2, "err")):
        with Path(job[name]).open("wb") as stream:
            os.dup2(stream.fileno(), number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.environ.update(job.get("env", {}))
    if "cwd" in job:
        os.chdir(job["cwd"])
    for patch in job.get("patches", []):
        _patch(*patch)
    sys.argv = ["mhrctl", *job["argv"]]
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:  # noqa: BLE001 - as Python does with whatever leaves a program
        traceback.print_exc()
        code = 1
    else:
        code = 0
    for written in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            written.flush()
    return code


def _patch(module: str, name: str, value: object) -> None:
    """Put something else in the place of a function or a constant, here alone.

    Args:
        module: that has it.
        name: of it; a dotted one is of something within.
        value: {"raises": text} for a function that fails, {"sleeps": seconds} for one that waits, {"returns": value} for one
            that does nothing else, or a value.
    """
    holder: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    if isinstance(value, dict) and "raises" in value:

        def replacement(*_: object, **__: object) -> object:
            raise RuntimeError(value["raises"])

        setattr(holder, last, replacement)
    elif isinstance(value, dict) and "sleeps" in value:
        setattr(holder, last, lambda *_, **__: time.sleep(value["sleeps"]))
    elif isinstance(value, dict) and "returns" in value:
        setattr(holder, last, lambda *_, **__: value["returns"])
    else:
        setattr(holder, last, value)


if __name__ == "__main__":
    serve()
