"""How many threads a command has: one, or what is asked for, whatever the environment says of libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mhrctl.artifacts.cards import read_card
from mhrctl.cli import threads
from mhrctl.cli.threads import expected_threads, limit_threads, prepare_threads, taken_threads
from mhrctl.running.machine import LIBRARIES
from tests.cli.conftest import MADE, Capture
from tests.conftest import Run

COUNTED = """\
import json, sys
from mhrctl.cli.app import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
import torch, pyarrow
from threadpoolctl import threadpool_info
pools = sorted({pool["num_threads"] for pool in threadpool_info()})
print(json.dumps([torch.get_num_threads(), torch.get_num_interop_threads(), pools, pyarrow.cpu_count()]))
"""
"""Runs a command in a process of its own, and says how many threads its libraries have then."""


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests set is set back."""
    for name in (*LIBRARIES, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "5")


def counted(*command: str, **env: str) -> list[object]:
    """What a command has in the end: threads of torch, and between its operations, of all other libraries, and of pyarrow."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *command],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_a_stage_has_one_thread_or_those_asked_for_and_never_the_librarys(copy: Path) -> None:
    command = ("pretrain", "-m", "lora", "--force", "-C", str(copy))
    assert counted(*command) == [1, 1, [1], 1]
    assert counted(*command, MHRCTL_DEVICE="auto", CUDA_VISIBLE_DEVICES="")[0] == 1
    assert counted(*command, MHRCTL_THREADS="2") == [2, 2, [2], 2]
    assert counted(*command, "--threads", "2", MHRCTL_THREADS="4") == [2, 2, [2], 2]
    assert counted("prepare", "--force", "-C", str(copy))[2:] == [[1], 1]
    card, log = read_card(copy / "data/pretrain/lora-s0", stage="pretrain", command=""), "data/log/pretrain-lora-s0.json"
    assert card.threads == json.loads((copy / log).read_text())["threads"] == 2


def test_another_number_is_another_output(copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    said = []
    for number in (1, 2, 2, 1):
        monkeypatch.setenv("MHRCTL_THREADS", str(number))
        capfd.readouterr()
        assert run("evaluate", "-m", "lora", "-C", copy) == 0
        said.append(capfd.readouterr().err.endswith(f"{MADE}\n"))
    assert said == [True, False, True, False]
    torch.set_num_threads(before)


def test_what_nothing_rounds_in_is_of_any_number(walked: Path, run: Run, capfd: Capture) -> None:
    for command in (["prepare"], ["average", "-m", "mhr"]):
        capfd.readouterr()
        assert run(*command, "--threads", 2, "-C", walked) == 0
        assert capfd.readouterr().err.endswith(f"{MADE}\n")


@pytest.mark.parametrize("number", ["0", "-1", "many", "100000"])
def test_no_number_of_threads_is_refused(walked: Path, run: Run, capfd: Capture, number: str) -> None:
    assert run("pretrain", "-m", "lora", "--threads", number, "-C", walked) == 2
    assert "--threads" in capfd.readouterr().err


@pytest.mark.usefixtures("unchanged")
def test_a_gpu_leaves_threads_to_libraries_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "may_have_gpu", lambda: True)
    assert [expected_threads(None, device) for device in ("auto", "cpu")] == [None, 1]
    assert expected_threads(4, "auto") == 4
    before = torch.get_num_threads()
    prepare_threads(None, "auto")
    assert torch.get_num_threads() == before
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("5", "PASSIVE")


@pytest.mark.usefixtures("unchanged")
def test_libraries_that_are_loaded_are_limited_too() -> None:
    before = torch.get_num_threads()
    limit_threads(2)
    assert taken_threads() == torch.get_num_threads() == 2
    assert {os.environ[name] for name in LIBRARIES} == {"2"}
    torch.set_num_threads(before)
