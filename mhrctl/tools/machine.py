"""What a machine gives: cores, memory, GPUs, room on disk, caches, locks, forks."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from mhrctl.errors import counted, listed
from mhrctl.running.forked import address_of
from mhrctl.running.machine import THREADS, cores, may_have_gpu
from mhrctl.tools.estimate import human_size
from mhrctl.tools.installation import Finding, State

COUNTING = 2.0
"""Seconds for which the files of a cache are counted."""
LITTLE_MEMORY, LITTLE_DISK = 2e9, 5e9
"""Bytes below which there is a warning: the libraries of one stage take 0.6 GB, a model of 250 million weights 1 GB."""
GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
CUDA_OF_TORCH = re.compile(r"^cuda(?:: [^=]+)? = '([^']+)'", re.MULTILINE)


def devices() -> Iterator[Finding]:
    """Look at what computes."""
    usable, there = cores(), os.cpu_count() or 1
    threads = os.environ.get(THREADS) or "1"
    said = f"{usable} of {counted(there, 'core')}; threads of a stage: {threads} ({THREADS})"
    yield Finding("cpu", said, facts={"usable": usable, "cores": there, "threads": threads})
    yield _memory()
    yield _gpu()


def total_memory() -> int:
    """Return the bytes of memory that there are for programs: the machine's, or those that a container may have."""
    return min(int(psutil.virtual_memory().total), _limit() or sys.maxsize)


def _limit() -> int | None:
    """The bytes that a container may have, if this is one with a limit."""
    with suppress(OSError, ValueError):  # there is no such file, or it says `max`
        return int(GROUP_LIMIT.read_text())
    return None


def _memory() -> Finding:
    memory, total, limit = psutil.virtual_memory(), total_memory(), _limit()
    available = min(memory.available, total)
    facts = {"bytes": total, "available": available, "limit_of_container": limit}
    said = f"{human_size(available)} of {human_size(total)} are free"
    if available < LITTLE_MEMORY:
        return Finding("memory", said, State.WARNING, "end what else runs; `mhrctl check` says what a stage takes", facts)
    return Finding("memory", said, facts=facts)


def _gpu() -> Finding:
    if find_spec("torch") is None:
        return Finding("gpu", "torch is not installed", State.BROKEN, "pip install torch", {"gpus": [], "cuda_of_torch": None})
    build = cuda_of_torch()
    if not may_have_gpu():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}
        why = "hidden by CUDA_VISIBLE_DEVICES" if hidden else "none here"
        return Finding("gpu", f"{why}; torch is {_build(build)}", State.ABSENT, facts={"gpus": [], "cuda_of_torch": build})
    gpus = _nvidia()
    facts = {"gpus": gpus, "cuda_of_torch": build}
    if sys.platform != "darwin" and build is None:
        named = listed([str(gpu["name"]) for gpu in gpus]) or "a driver is here"
        remedy = "install torch's CUDA build (docs/install.md), then mhrctl"
        return Finding("gpu", f"{named}, but torch is {_build(build)} and does not use it", State.WARNING, remedy, facts)
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("gpu", f"{listed(names)}; torch is {_build(build)}", facts={**facts, "seen_by_torch": names})
    if torch.backends.mps.is_available():
        return Finding("gpu", "Apple GPU", facts={**facts, "seen_by_torch": ["mps"]})
    remedy = "look at `nvidia-smi`: is the driver new enough for that CUDA, may this user open the device?"
    return Finding("gpu", f"a driver is here, but torch ({_build(build)}) sees no GPU", State.WARNING, remedy, facts)


def _build(cuda: str | None) -> str:
    return f"a build for CUDA {cuda}" if cuda else "the CPU build"


def cuda_of_torch() -> str | None:
    """Return the version of CUDA that torch was built for, without importing it; None of a CPU build, or without torch."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    match = CUDA_OF_TORCH.search(file.read_text(encoding="utf-8")) if file.exists() else None
    return match[1] if match else None


def _nvidia() -> list[dict[str, object]]:
    """The GPUs that NVIDIA's driver lists, with memory in bytes."""
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        listing = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S603
        rows = [[part.strip() for part in line.split(",")] for line in listing.splitlines()]
        return [
            {"name": name, "memory": int(total) << 20, "free": int(free) << 20, "driver": driver}
            for name, total, free, driver in rows
        ]
    return []


@dataclass(frozen=True)
class Size:
    """The size of a folder.

    Attributes:
        bytes: of its files.
        files: how many.
        is_whole: whether all were counted.
    """

    bytes: int
    files: int
    is_whole: bool

    def __str__(self) -> str:
        return f"{'' if self.is_whole else 'more than '}{human_size(self.bytes)} in {counted(self.files, 'file')}"


def size_of(folder: Path, seconds: float = COUNTING) -> Size:
    """Add up the files of a folder, of which links are not followed, for so long at most."""
    until, total, files, folders = time.monotonic() + seconds, 0, 0, [folder]
    while folders and time.monotonic() < until:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total, files = total + entry.stat(follow_symlinks=False).st_size, files + 1
    return Size(total, files, not folders)


def storage(folder: Path) -> Iterator[Finding]:
    """Look at where things are kept: a project's disk, the hub's cache, DVC's cache, the folder of temporary files.

    Args:
        folder: of a project, or where one would be made.
    """
    yield _disk("disk", folder, "`mhrctl grid prune`, then `dvc gc --workspace`")
    yield _hub()
    if (folder / ".dvc").is_dir():
        yield _dvc(folder)
    yield _disk("temporary", Path(tempfile.gettempdir()), "empty it, or set TMPDIR")


def _disk(name: str, folder: Path, way_out: str) -> Finding:
    free = shutil.disk_usage(folder).free
    said, facts = f"{human_size(free)} are free for {folder}", {"at": str(folder), "free": free}
    if not os.access(folder, os.W_OK):
        return Finding(name, f"{folder} cannot be written", State.BROKEN, "change its owner, or go elsewhere", facts)
    if free < LITTLE_DISK:
        return Finding(name, said, State.WARNING, way_out, facts)
    return Finding(name, said, facts=facts)


def _hub() -> Finding:
    try:
        from huggingface_hub import constants
    except ImportError as error:
        return _not_importable("hub cache", error)
    folder = Path(constants.HF_HUB_CACHE)
    facts: dict[str, object] = {"at": str(folder)}
    if not folder.exists():
        return Finding("hub cache", f"{folder}, not there yet", facts=facts)
    size, free = size_of(folder), shutil.disk_usage(folder).free
    facts |= {"bytes": size.bytes, "files": size.files, "is_whole": size.is_whole, "free": free}
    said = f"{size} in {folder}; {human_size(free)} are free"
    if not os.access(folder, os.W_OK):
        return Finding("hub cache", f"{said}; it cannot be written", State.WARNING, "set HF_HUB_CACHE to move it", facts)
    return Finding("hub cache", said, facts=facts)


def _not_importable(name: str, error: ImportError) -> Finding:
    """What there is to say where a library is not there, or damaged."""
    return Finding(name, f"cannot be looked at: {error}", State.BROKEN, "install mhrctl again", {"error": str(error)})


def _dvc(folder: Path) -> Finding:
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc_objects.fs.generic import test_links
    except ImportError as error:
        return _not_importable("dvc cache", error)
    try:
        with Repo(str(folder)) as repo:
            cache = repo.cache.local
            types, at = list(cache.cache_types), Path(cache.path)
            output = str(folder / "data")  # beside which a link is tried
            possible = ["copy", *test_links(["reflink", "hardlink", "symlink"], cache.fs, cache.path, repo.fs, output)]
    except (DvcException, OSError) as error:
        line = str(error).partition("\n")[0]
        return Finding("dvc cache", f"cannot be used: {line}", State.BROKEN, "`dvc doctor` says more", {"error": line})
    size = size_of(at)
    used = next((each for each in types if each in possible), "copy")
    how = "takes its room twice: as output and in the cache" if used == "copy" else "takes its room once"
    facts = {"at": str(at), "bytes": size.bytes, "files": size.files, "is_whole": size.is_whole}
    facts |= {"link": used, "configured": types, "possible": possible, "free": shutil.disk_usage(at).free}
    return Finding("dvc cache", f"{size} in {at}; by {used}, so that each output {how}", facts=facts)


def abilities(folder: Path) -> Iterator[Finding]:
    """Try what stages rely on: locks of files in a folder, and a socket and a fork for the fork server."""
    yield _locks(folder)
    yield _forks()


def _locks(folder: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mhrctl-doctor-") as one, Path(one.name).open() as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("file locks", f"hold in {folder}", facts={"work": True})
    except OSError as error:
        said = f"cannot be tried in {folder}: {error.strerror}"
        remedy = "keep one process at a time on an output, or use a disk with locks"
        return Finding("file locks", said, State.WARNING, remedy, {"work": False})
    said = f"do not hold in {folder}: two processes could write one output"
    return Finding("file locks", said, State.BROKEN, "use another disk, or one process at a time", {"work": False})


def _forks() -> Finding:
    """Whether a run can have a fork server."""
    facts = {"works": True}
    if may_have_gpu() and os.environ.get("MHRCTL_DEVICE") != "cpu":
        return Finding("fork server", "not used where there is a GPU", State.ABSENT, facts={"works": False})
    if not hasattr(os, "pidfd_open"):
        return Finding("fork server", "is for Linux; stages start by themselves", State.ABSENT, facts={"works": False})
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            address = address_of(os.getpid()).with_suffix(".doctor")
            listener.bind(str(address))
            address.unlink()
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        said = f"cannot be had ({error.strerror or error}); stages start by themselves"
        return Finding("fork server", said, State.WARNING, "look at TMPDIR", {"works": False})
    return Finding("fork server", "works", facts=facts)
