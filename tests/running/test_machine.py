"""What this machine has: cores, GPUs and their names, and what a process is told of threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.errors import ParamsError
from mhrctl.running import machine
from mhrctl.running.machine import cores, may_have_gpu, require_gpus, thread_environment

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-00000000-d33d-2b2c-524d-9e3d8d2b8a77)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_that_the_process_may_use() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}]); from mhrctl.running.machine import cores; print(cores())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_a_process_is_told_how_many_threads_and_not_to_spin() -> None:
    environment = thread_environment(3)
    assert environment.pop("OMP_WAIT_POLICY") == "PASSIVE"
    assert set(environment.values()) == {"3"}
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"} <= environment.keys()


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver names two GPUs."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_numbers_or_uuids_that_there_are() -> None:
    assert require_gpus([]) == []
    assert require_gpus(["1", "00"]) == ["1", "0"]
    for name in ("GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-5d5b", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"):
        assert require_gpus([name]) == [name]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nope", "-3"], "--gpus: 'nope' is no GPU; give numbers from 0 on"),
        (["-3"], "--gpus: '-3' is no GPU"),
        (["0", ""], "--gpus: an empty entry is no GPU"),
        (["1.5"], "--gpus: '1.5' is no GPU"),
        (["٣"], "is no GPU"),
        (["0", "1", "00"], "--gpus: 0 occurs twice; to share a GPU set `run.slots`"),
        (["2"], "--gpus: 2: no such GPU here (known: 0, GPU-5d5b"),
        (["GPU-ffff"], "--gpus: GPU-ffff: no such GPU here"),
    ],
)
def test_what_is_no_gpu_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=f"^.*{re.escape(message)}"):
        require_gpus(names)


def test_without_a_driver_there_is_no_gpu_and_with_an_unknown_one_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(machine, "DRIVERS", ("none-such",))
    assert not may_have_gpu()
    with pytest.raises(ParamsError, match="--gpus: 0: no GPU here"):
        require_gpus(["0"])
    monkeypatch.setattr(machine, "DRIVERS", ("null",))
    assert require_gpus(["7"]) == ["7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert may_have_gpu()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not may_have_gpu()
