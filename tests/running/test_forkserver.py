"""The server of a run: what it imports, when it refuses to fork, and when it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhrctl.running.forked import address_of
from tests.running.forking import ALONE, serving
from tests.running.toy import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are served on Linux alone")


def test_it_ends_with_the_run() -> None:
    with serving() as run:
        run.owner.kill()
        run.owner.wait()
        assert run.server.wait(timeout=60) == 0
        assert not list(run.folder.rglob("*.sock"))


def test_it_waits_for_its_last_process() -> None:
    with serving() as run:
        command = run.begin("import sys, time; print('on', flush=True); sys.stdin.read(); sys.exit(3)")
        assert command.stdout
        assert command.stdout.readline() == "on\n"
        run.owner.kill()
        run.owner.wait()
        eventually(lambda: not list(run.folder.rglob("*.sock")), "it listens no more")
        assert run.server.poll() is None
        command.communicate("", timeout=60)
        assert command.returncode == 3
        assert run.server.wait(timeout=60) == 0


def test_a_second_server_of_a_run_gives_way() -> None:
    with serving() as run:
        again = run.begin(
            "import os, sys; from pathlib import Path; from mhrctl.running.forkserver import serve; "
            f"serve(Path({str(next(run.folder.rglob('*.sock')))!r}), {run.owner.pid}, {{}})"
        )
        assert again.wait(timeout=60) == 0
        assert run.run("pass")[0] == 0
        assert len(list(run.folder.rglob("*.*"))) == 1


@pytest.mark.parametrize(
    "program",
    [
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "kept = open('/dev/null')",
        "raise RuntimeError",
    ],
)
def test_it_does_not_fork_what_has_begun_more_than_a_fork_would_have(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "begins.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    with serving("begins") as run:
        assert run.run("pass")[0] == ALONE
        assert run.server.wait(timeout=60) == 0


def test_random_numbers_of_two_forks_differ() -> None:
    with serving() as run:
        drawn = {run.run("import random; print(random.random())")[1] for _ in range(2)}
    assert len(drawn) == 2


def test_a_server_takes_the_place_of_one_that_was_killed() -> None:
    with serving() as run:
        run.server.kill()
        run.server.wait()
        address = address_of(run.owner.pid)
        assert address.exists()
        assert run.run("pass")[0] == ALONE


def test_what_each_process_would_do_is_done_once() -> None:
    with serving("json") as run:
        eventually(lambda: run.run("import sys; sys.exit(not hasattr(sys, 'once'))")[0] == 0, "all is loaded")
    with serving() as run:  # where it fails, and is no matter
        assert run.run("import sys; sys.exit(hasattr(sys, 'once'))")[0] == 0
