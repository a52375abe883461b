"""A command of a run: it has the fork server's process do as it would have done itself, and otherwise does so itself."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.running import forked
from mhrctl.running.forked import FORKSERVER, address_of, run_forked
from tests.running.forking import ALONE, serving
from tests.running.toy import eventually, is_running

NOBODY = "1"  # a process that no server is for, while this one may have run a pipeline

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are served on Linux alone")


def test_a_command_runs_in_its_own_folder_with_its_own_environment_and_files(tmp_path: Path) -> None:
    program = (
        "import json, os, sys; print(os.getcwd(), os.environ['MHRCTL_OFF'], os.environ['DVC_STAGE'], sys.stdin.read(), "
        "'json' in sys.modules); print('complaint', file=sys.stderr); sys.exit(7)"
    )
    with serving() as run:
        code, out, err = run.run(program, cwd=tmp_path, MHRCTL_OFF="all", DVC_STAGE="mine")
    assert (code, out, err) == (7, f"{tmp_path} all mine typed True\n", "complaint\n")


def test_commands_at_once_are_forked_from_one_process() -> None:
    with serving() as run:
        commands = [run.begin("import os, time; print(os.getppid(), flush=True); time.sleep(0.3)") for _ in range(3)]
        assert {command.communicate(timeout=60)[0] for command in commands} == {f"{run.server.pid}\n"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_a_command_is_one_to_its_process(number: signal.Signals) -> None:
    handled = f"import signal, sys, time; signal.signal({int(number)}, lambda *_: sys.exit(5))"
    # Short sleeps: a signal that comes just before one is handled after it.
    program = f"{handled}; print('on', flush=True)\nfor _ in range(600):\n time.sleep(0.1)"
    with serving() as run:
        command = run.begin(program)
        assert command.stdout
        assert command.stdout.readline() == "on\n"
        command.send_signal(number)
        assert command.wait(timeout=60) == 5


EARLY = """
import os, signal, socket, subprocess, sys, time
from mhrctl.running import forked
command, server = socket.socketpair()
if os.fork():
    server.close()
    sys.exit(forked._stand_for(command, ["pretrain"]))
command.close()
handled = f"import signal, sys, time; signal.signal({NUMBER}, lambda *_: sys.exit(5)); print('on', flush=True)"
process = subprocess.Popen([sys.executable, "-c", handled + "; time.sleep(60)"], stdout=subprocess.PIPE, start_new_session=True)
while not server.recv(65536).endswith(b"\\n"):
    pass
process.stdout.readline()
os.kill(os.getppid(), NUMBER)
time.sleep(0.5)
server.sendall(b"%d\\n" % process.pid)
server.sendall(b"%d\\n" % process.wait())
os._exit(0)
"""
"""A command, and a server that has the signal sent when the process has begun and the command has not been told of it."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_comes_as_the_process_begins_is_one_to_it(number: signal.Signals) -> None:
    program = EARLY.replace("NUMBER", str(int(number)))
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 5


def test_a_command_ends_by_the_signal_that_ends_its_process() -> None:
    with serving() as run:
        assert run.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")[0] == -signal.SIGKILL


def test_a_command_that_is_killed_takes_its_process_along() -> None:
    with serving() as run:
        command = run.begin("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
        assert command.stdout
        process = int(command.stdout.readline())
        command.kill()
        eventually(lambda: not is_running(process), "the process is gone")
        assert run.run("pass")[0] == 0


def test_a_command_whose_server_is_killed_ends_its_process() -> None:
    with serving() as run:
        command = run.begin("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
        assert command.stdout
        process = int(command.stdout.readline())
        run.server.kill()
        assert command.wait(timeout=60) == -signal.SIGKILL
        eventually(lambda: not is_running(process), "the process is gone")


def test_a_stopped_command_stops_its_process() -> None:
    program = "import time\nfor n in range(600):\n print(n, flush=True); time.sleep(0.02)"
    with serving() as run:
        command = run.begin(program)
        assert command.stdout
        command.stdout.readline()
        command.send_signal(signal.SIGTSTP)
        eventually(lambda: _state(command.pid) == "T", "it stands still")
        os.kill(command.pid, signal.SIGCONT)
        before = int(command.stdout.readline())
        assert int(command.stdout.readline()) == before + 1
        command.kill()


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_process_holds_the_locks_of_its_command(tmp_path: Path) -> None:
    with serving() as run, (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = run.begin("import time; print('on', flush=True); time.sleep(1)", pass_fds=(lock.fileno(),))
        assert command.stdout
        assert command.stdout.readline() == "on\n"
        lock.close()
        command.kill()  # which leaves the lock to the process alone, until that is ended
        with (tmp_path / "lock").open("w") as again:
            fcntl.flock(again, fcntl.LOCK_EX)


@pytest.mark.parametrize(
    "env",
    [
        {FORKSERVER: "off"},
        {FORKSERVER: "nonsense"},
        {FORKSERVER: "1000000000"},
        {"HF_HOME": "/elsewhere"},  # read where huggingface_hub is imported
        {"MHRCTL_THREADS": "2"},
        {"WORLD_SIZE": "2"},
    ],
)
def test_a_command_with_other_surroundings_goes_by_itself(env: dict[str, str]) -> None:
    with serving() as run:
        assert run.run("pass", **env)[0] == ALONE
        assert run.run("pass")[0] == 0


def test_a_command_that_goes_by_itself_hears_signals_as_before() -> None:
    program = (
        "import signal\nfrom mhrctl.running.forked import run_forked\n"
        "print(run_forked(['quick', 'pass'], starts=()), signal.set_wakeup_fd(-1))"
    )
    with serving() as run:
        went = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program],
            env=run.environment(HF_HOME="/elsewhere"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (went.stdout, went.stderr) == ("None -1\n", "")


def test_a_command_of_another_installation_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    before = forked.surroundings()
    monkeypatch.setattr(sys, "prefix", "/another/venv")
    assert forked.surroundings() != before


def test_a_command_that_is_no_stage_of_dvc_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setenv(FORKSERVER, NOBODY)
    assert run_forked(["average"], starts=["average"]) is None


def test_threads_are_for_a_process_that_has_imported_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "toy")
    monkeypatch.setenv("MHRCTL_DEVICE", "cpu")
    monkeypatch.setenv(FORKSERVER, NOBODY)
    monkeypatch.setattr(forked, "_start", lambda *_: pytest.fail("started"))
    assert run_forked(["average", "--threads", "2"], starts=["average"]) is None
    assert run_forked(["grid", "sync"], starts=["average"]) is None


def test_where_a_gpu_may_be_each_command_starts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "toy")
    monkeypatch.delenv("MHRCTL_DEVICE", raising=False)
    monkeypatch.setenv(FORKSERVER, NOBODY)
    monkeypatch.setattr(forked, "_start", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("mhrctl.running.machine.may_have_gpu", lambda: True)
    assert run_forked(["average"], starts=["average"]) is None


def test_the_dvc_that_runs_a_stage_is_known(tmp_path: Path) -> None:
    program = tmp_path / "dvc"
    program.write_text(
        "import os, subprocess, sys\nprint(os.getpid(), flush=True)\n"
        "subprocess.run(['/bin/sh', '-c', sys.argv[1]], env={**os.environ, 'DVC_STAGE': 'x'})\n"
    )
    asks = f"true; {sys.executable} -c 'from mhrctl.running.forked import _dvc; print(_dvc())'; true"
    env = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"} | {"PYTHONPATH": str(Path.cwd())}
    lines = subprocess.run(
        [sys.executable, str(program), asks], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    assert lines[0] == lines[1]
    other = tmp_path / "other"
    program.rename(other)
    lines = subprocess.run(
        [sys.executable, str(other), asks], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    assert lines[1] == "None"


def test_nobody_else_may_enter_the_folder_of_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = address_of(os.getpid()).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(PermissionError):
        address_of(os.getpid())
