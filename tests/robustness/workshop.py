"""A workshop is a copy of a walked project in which one thing is damaged, a command is run, and all is put back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.robustness.outcomes import Ended

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after which a command of a tiny project hangs: it takes a tenth of one, on a machine that is busy with others."""
ENVIRONMENT = {
    "CI": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "MHRCTL_DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "COLUMNS": "200",
    "PYTHONHASHSEED": "0",
}
PLACED = (("export", "-m", "lora"), ("export", "-m", "lora", "--stage", "pretrain"))
"""Commands whose outputs name the place of the project, so that each copy has others."""
ALIVE = ("data/log/",)
"""Below these, files may differ between two equal runs."""


@dataclass(frozen=True)
class Job:
    """A job is one command, and what is done to it.

    Attributes:
        argv: the command's words.
        start: seconds after the others of the same call.
        kill: (signal, seconds after its start).
        env: further environment.
        cwd: where it runs.
        patches: (module, name, value) put in place of what is there.
    """

    argv: tuple[str, ...]
    start: float = 0.0
    kill: tuple[int, float] | None = None
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    patches: tuple[tuple[str, str, Any], ...] = ()


class Runner:
    """A runner has a server of forks, which runs commands in a tenth of a second."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mhrctl-robustness-"))
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.forking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        assert self._answer() == "ready"

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=LIMIT)
        self._server.stdout.close()
        shutil.rmtree(self._folder)

    def together(self, *jobs: Job, limit: float = LIMIT) -> list[Ended]:
        """Run jobs at once."""
        files = [{name: str(self._folder / f"{number}.{name}") for name in ("out", "err")} for number in range(len(jobs))]
        assert self._server.stdin is not None
        request = {"limit": limit, "jobs": [_request(job) | names for job, names in zip(jobs, files, strict=True)]}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answers = self._answer()
        return [
            Ended(job.argv, answer["code"], _text(names["out"]), _text(names["err"]), answer["hung"], answer["seconds"])
            for job, answer, names in zip(jobs, answers, files, strict=True)
        ]

    def run(self, *argv: object, limit: float = LIMIT, **rest: Any) -> Ended:
        """Run one command."""
        return self.together(Job(tuple(map(str, argv)), **rest), limit=limit)[0]

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline() or '"the server has died"')


def _text(path: str) -> str:
    return Path(path).read_bytes().decode(errors="replace")


def _request(job: Job) -> dict[str, Any]:
    request: dict[str, Any] = {"argv": list(job.argv), "start": job.start, "patches": job.patches, "env": dict(job.env or {})}
    if job.kill:
        request["kill"] = job.kill
    if job.cwd:
        request["cwd"] = str(job.cwd)
    return request


def files_of(root: Path) -> dict[str, Path]:
    """Return {name: path} of all files and links below a folder."""
    return {
        path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_symlink() or not path.is_dir()
    }


def content(path: Path) -> str:
    """Return what a file holds, as a hash, or where a link leads."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if not path.is_file():
        return "no plain file"
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Workshop:
    """A workshop damages a copy and puts it back.

    Attributes:
        runner: of its commands.
        root: the copy, to be damaged.
        pristine: another copy, never to be changed.
    """

    def __init__(self, runner: Runner, walked: Path, root: Path) -> None:
        self.runner, self.root = runner, root
        shutil.copytree(walked, root, symlinks=True)
        for argv in PLACED:
            ended = self.run(*argv)
            assert ended.code == 0, ended.err
        self.pristine = Path(tempfile.mkdtemp(prefix="mhrctl-pristine-")) / "project"
        weakref.finalize(self, shutil.rmtree, self.pristine.parent)
        shutil.copytree(root, self.pristine, symlinks=True)
        pristine = self.pristine
        self._good = {name: (path, content(path)) for name, path in files_of(pristine).items()}
        self._stamps = {name: _stamp(path) for name, path in files_of(root).items()}

    @property
    def names(self) -> set[str]:
        """The names of all files of the undamaged project."""
        return {*self._good}

    def run(self, *argv: object, **rest: Any) -> Ended:
        """Run a command in the copy."""
        return self.runner.run(*argv, "-C", self.root, **rest)

    def job(self, *argv: object, **rest: Any) -> Job:
        """Return a command in the copy, to be run with others."""
        return Job((*map(str, argv), "-C", str(self.root)), **rest)

    def remove(self, *names: str) -> None:
        """Remove files or folders of the copy."""
        for name in names:
            path = self.root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def changed(self, *, but: Iterable[str] = ()) -> list[str]:
        """Return names of files that are not what they were.

        Args:
            but: prefixes of names that do not count.
        """
        left = (*ALIVE, *but)
        now = files_of(self.root)
        names = sorted({*now, *self._good})
        return [name for name in names if not name.startswith(left) and self._is_changed(name, now.get(name))]

    def _is_changed(self, name: str, path: Path | None) -> bool:
        if path is None or name not in self._good:
            return True
        return self._stamps.get(name) != _stamp(path) and content(path) != self._good[name][1]

    def restore(self) -> None:
        """Put everything back."""
        now = files_of(self.root)
        for name, path in now.items():
            if name not in self._good:
                path.unlink()
        for name, (good, _) in self._good.items():
            path = self.root / name
            if name not in now or self._stamps[name] != _stamp(path):
                self._put_back(good, path)
                self._stamps[name] = _stamp(path)
        for folder in sorted((path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True):
            if not (self.pristine / folder.relative_to(self.root)).is_dir():
                shutil.rmtree(folder)

    def _put_back(self, good: Path, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        for parent in reversed(path.relative_to(self.root).parents):
            above = self.root / parent
            if above.is_symlink() or (above.exists() and not above.is_dir()):
                above.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        shutil.copy2(good, path, follow_symlinks=False)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
