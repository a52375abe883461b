"""Ctrl-C and SIGTERM at any moment: a line and an exit code, no traceback, and nothing half-written."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mhrctl.artifacts.hashing import digest
from mhrctl.cli.signals import TerminatedError, raising_signals, stopping

ROOT = Path(__file__).parents[2]
MHRCTL = [sys.executable, "-m", "mhrctl"]
SWALLOWED = """\
import os, signal, time
from mhrctl.cli.signals import raising_signals

class Stubborn:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

try:
    with raising_signals():
        Stubborn()
        time.sleep(600)  # which is not waited for
except KeyboardInterrupt:
    print("interrupted")
"""
IMPORTING = """\
from mhrctl.cli.signals import raising_signals
with raising_signals():
    try:
        import slow
    except Exception:
        pass
"""
SLOW = """\
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    raise ImportError("as libraries make of it")
"""


def interrupted(command: list[str], seconds: float, number: signal.Signals) -> tuple[int, str]:
    """The exit code and stderr of a command that is sent a signal after a time."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    time.sleep(seconds)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_says_in_a_line_that_it_was_interrupted(copy: Path, number: signal.Signals) -> None:
    before = digest(copy / "data/pretrain")
    command = [*MHRCTL, "pretrain", "-m", "lora", "--set", "pretrain.steps=100000", "-C", str(copy)]
    for seconds in (0.4, 1.0, 2.0, 6.0):
        code, said = interrupted(command, seconds, number)
        if code == -number:  # the interpreter itself had not begun
            continue
        assert "Traceback" not in said
        assert (code, said.count("\n")) == (128 + number, 1), said
        assert said.startswith((f"error: {'interrupted' if number == signal.SIGINT else 'terminated'}", "stopped at step "))
        assert digest(copy / "data/pretrain") == before


@pytest.mark.slow
def test_no_moment_has_a_traceback(copy: Path) -> None:
    command = [*MHRCTL, "prepare", "--force", "-C", str(copy)]
    for step in range(60):
        code, said = interrupted(command, 0.25 + step * 0.05, signal.SIGINT)
        assert "Traceback" not in said, said
        # Python takes handlers away as it ends: a signal from then on ends a process that is done.
        assert code in (0, 130) or (code == -signal.SIGINT and "wrote" in said), said
        assert (copy / "data/prepare/card.json").exists()


def test_what_a_destructor_swallows_is_raised_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_an_import_is_ended_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_handlers_are_as_they_were_afterwards() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(TerminatedError), raising_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    with pytest.raises(KeyboardInterrupt), raising_signals():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_first_signal_asks_and_a_second_raises() -> None:
    with pytest.raises(TerminatedError), raising_signals(), stopping() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        assert asked()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_launched_process_is_asked_as_often_as_its_launcher_likes() -> None:
    with pytest.raises(KeyboardInterrupt), raising_signals(), stopping(launched=True) as asked:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        time.sleep(0.2)
        assert asked()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_training_that_is_stopped_says_where_and_goes_on_to_the_same_bytes(copy: Path, number: signal.Signals) -> None:
    command = [*MHRCTL, "pretrain", "-m", "lora", "--set", "pretrain.steps=300", "-C", str(copy)]
    environment = os.environ | {"MHRCTL_PROGRESS_SECONDS": "0.05"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        lines = []
        for line in process.stderr or ():
            lines.append(line)
            if ": step " in line:
                process.send_signal(number)
                break
        lines += process.stderr or ()
    assert process.returncode == 128 + number
    stopped = re.search(r"^stopped at step ([\d,]+) of 300; `mhrctl (pretrain .*)` goes on from there$", lines[-1])
    assert stopped, lines
    again = subprocess.run([*MHRCTL, *shlex.split(stopped[2])], capture_output=True, text=True, check=True, env=environment)
    assert f"pretrain lora-s0: goes on from step {stopped[1]} of 300\n" in again.stderr
    resumed = digest(copy / "data/pretrain/lora-s0")
    subprocess.run([*command, "--force"], check=True, capture_output=True)
    assert digest(copy / "data/pretrain/lora-s0") == resumed


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raising_signals():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_reader_that_has_seen_enough_is_no_fault(copy: Path) -> None:
    command = f"{sys.executable} -m mhrctl check -C {copy} | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
