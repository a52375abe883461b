"""What a machine gives is measured, and what stages rely on is tried."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import pytest

from mhrctl.tools import machine
from mhrctl.tools.installation import Finding, State
from mhrctl.tools.machine import abilities, cuda_of_torch, devices, size_of, storage


class Memory(NamedTuple):
    """What psutil says of memory."""

    total: int
    available: int


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_cores_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("MHRCTL_THREADS", "2")
    assert by_name(devices())["cpu"].says == "3 of 8 cores; threads of a stage: 2 (MHRCTL_THREADS)"
    monkeypatch.setenv("MHRCTL_THREADS", "many")  # of which each command complains
    assert by_name(devices())["cpu"].facts["threads"] == "many"


def test_a_container_has_the_memory_of_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * 10**9, 40 * 10**9))
    monkeypatch.setattr(machine, "GROUP_LIMIT", tmp_path / "memory.max")
    assert by_name(devices())["memory"].says == "40 GB of 64 GB are free"
    assert machine.total_memory() == 64 * 10**9
    (tmp_path / "memory.max").write_text("max\n")
    assert by_name(devices())["memory"].facts["limit_of_container"] is None
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert machine.total_memory() == 10**9
    memory = by_name(devices())["memory"]
    assert (memory.says, memory.state) == ("1.0 GB of 1.0 GB are free", State.WARNING)


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = None\n", None),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0"),
        ("cuda = '12.4'\n", "12.4"),
        (None, None),
    ],
)
def test_the_build_of_torch_is_read_and_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, cuda: str | None
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{text}")
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(machine, "find_spec", lambda name: spec)  # noqa: ARG005
    assert cuda_of_torch() == cuda


def test_the_build_that_is_here_is_known() -> None:
    import torch

    assert cuda_of_torch() == torch.version.cuda


def _gpu(monkeypatch: pytest.MonkeyPatch, *, driver: bool, cuda: str | None) -> Finding:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: driver)
    monkeypatch.setattr(machine, "cuda_of_torch", lambda: cuda)
    monkeypatch.setattr(machine, "_nvidia", lambda: [{"name": "NVIDIA H100", "memory": 1}] if driver else [])
    return by_name(devices())["gpu"]


def test_a_gpu_that_torch_does_not_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    none = _gpu(monkeypatch, driver=False, cuda=None)
    assert (none.says, none.state) == ("none here; torch is the CPU build", State.ABSENT)
    unused = _gpu(monkeypatch, driver=True, cuda=None)
    assert unused.says == "NVIDIA H100, but torch is the CPU build and does not use it"
    assert unused.state is State.WARNING
    unseen = _gpu(monkeypatch, driver=True, cuda="13.0")  # no torch of this machine sees one
    assert unseen.says == "a driver is here, but torch (a build for CUDA 13.0) sees no GPU"


def test_a_gpu_that_torch_sees_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"NVIDIA L4 {number}")
    seen = _gpu(monkeypatch, driver=True, cuda="13.0")
    assert seen.says == "NVIDIA L4 0, NVIDIA L4 1; torch is a build for CUDA 13.0"
    assert seen.state is State.OK


def test_hidden_gpus_and_a_missing_torch_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert by_name(devices())["gpu"].says.startswith("hidden by CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(machine, "find_spec", lambda name: None)  # noqa: ARG005
    assert by_name(devices())["gpu"].state is State.BROKEN


def test_what_the_driver_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H100 80GB HBM3, 81559, 81000, 570.1\n"
    monkeypatch.setattr(subprocess, "run", lambda *args, **rest: types.SimpleNamespace(stdout=line))  # noqa: ARG005
    (gpu,) = machine._nvidia()
    assert gpu == {"name": "NVIDIA H100 80GB HBM3", "memory": 81559 << 20, "free": 81000 << 20, "driver": "570.1"}

    def missing(*args: Any, **rest: Any) -> None:  # noqa: ARG001
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine._nvidia() == []


def test_a_folder_is_added_up_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 10)
    (tmp_path / "a/b/two").write_bytes(b"x" * 5)
    (tmp_path / "a/round").symlink_to(tmp_path)
    (tmp_path / "a/link").symlink_to(tmp_path / "a/one")
    assert size_of(tmp_path) == machine.Size(15, 2, is_whole=True)
    assert str(size_of(tmp_path)) == "15 B in 2 files"
    assert str(size_of(tmp_path, seconds=0)) == "more than 0 B in 0 files"


def test_disks_caches_and_their_room(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert by_name(storage(copy))["hub cache"].says == f"{cache}, not there yet"
    cache.mkdir()
    (cache / "model").write_bytes(b"x" * 1000)
    findings = by_name(storage(copy))
    assert findings["hub cache"].says.startswith(f"1.0 kB in 1 file in {cache}; ")
    assert set(findings) == {"disk", "hub cache", "temporary"}  # without DVC, there is no cache of its
    monkeypatch.setattr(machine, "LITTLE_DISK", float("inf"))
    assert by_name(storage(copy))["disk"].state is State.WARNING


def test_the_cache_of_dvc_says_how_outputs_are_linked(tmp_path: Path) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    copied = by_name(storage(tmp_path))["dvc cache"]
    assert "copy" in copied.facts["possible"]  # type: ignore[operator]
    subprocess.run([*dvc, "config", "cache.type", "hardlink,copy"], cwd=tmp_path, check=True)
    linked = by_name(storage(tmp_path))["dvc cache"]
    assert linked.facts["link"] == "hardlink"
    assert "by hardlink, so that each output takes its room once" in linked.says
    assert not list(tmp_path.glob("*tmp*"))
    (tmp_path / ".dvc/config").write_text("not a config")
    assert by_name(storage(tmp_path))["dvc cache"].state is State.BROKEN


def test_a_library_that_cannot_be_imported_is_broken(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvc.repo", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    (copy / ".dvc").mkdir()
    findings = by_name(storage(copy))
    assert findings["dvc cache"].state is findings["hub cache"].state is State.BROKEN


def test_locks_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name(abilities(tmp_path))["file locks"].says == f"hold in {tmp_path}"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)  # noqa: ARG005 - as some file systems do
    assert by_name(abilities(tmp_path))["file locks"].state is State.BROKEN

    def unknown(*args: object) -> None:  # noqa: ARG001
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert by_name(abilities(tmp_path))["file locks"].says == f"cannot be tried in {tmp_path}: Operation not supported"


def test_whether_a_run_can_have_a_fork_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: False)
    works = by_name(abilities(tmp_path))["fork server"]
    assert works.says == ("works" if hasattr(os, "pidfd_open") else "is for Linux; stages start by themselves")
    monkeypatch.setattr(os, "pidfd_open", lambda process: os.open("/dev/null", os.O_RDONLY), raising=False)  # noqa: ARG005
    monkeypatch.setattr(machine, "address_of", lambda process: tmp_path / ("x" * 200))  # noqa: ARG005 - longer than sockets' are
    assert by_name(abilities(tmp_path))["fork server"].state is State.WARNING
    monkeypatch.setattr(machine, "may_have_gpu", lambda: True)
    monkeypatch.delenv("MHRCTL_DEVICE", raising=False)
    assert by_name(abilities(tmp_path))["fork server"].state is State.ABSENT
