"""A toy DVC project of shell commands, each of which notes when it began and ended."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from ruamel.yaml import YAML

DVC_YAML = """\
vars:
  - cells.yaml
stages:
  data:
    cmd: sh note.sh data 'echo data > data.txt'
    outs: [data.txt]
  train:
    foreach: ${cells}
    do:
      cmd: sh note.sh train-${key} 'mkdir out-${key}; cat data.txt cells/${key}.json > out-${key}/weights'
      deps: [data.txt]
      params:
        - cells/${key}.json: [train]
      outs: ["out-${key}"]
  evaluate:
    foreach: ${cells}
    do:
      cmd: sh note.sh evaluate-${key} 'cat out-${key}/weights evaluate.json > score-${key}.json'
      deps: ["out-${key}"]
      params:
        - evaluate.json: [beams]
      metrics:
        - score-${key}.json: {cache: false}
  report:
    cmd: sh note.sh report 'cat score-*.json > report.txt'
    deps: [scores]
    params:
      - cells.yaml: [cells]
    outs:
      - report.txt: {cache: false}
"""

NOTE = """\
# note.sh NAME COMMAND: run it for as long as the file `seconds`, or seconds-NAME, says, between two lines in `ran`.
# What it says is read first: a test that has seen the command begin may change it for the next one.
seconds=$(cat seconds-$1 2> /dev/null || cat seconds)
echo "begin $1 $CUDA_VISIBLE_DEVICES" >> ran
test -e fail-$1 && { echo "this is why $1 failed"; exit 3; }
sleep "$seconds"
eval "$2"
echo "end $1" >> ran
"""


class Toy:
    """A project in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def make(cls, root: Path, cells: list[str], seconds: float = 0) -> Toy:
        """Write the project's files and `dvc init` it."""
        toy = cls(root)
        root.mkdir(parents=True)
        (root / "note.sh").write_text(NOTE)
        (root / "cells").mkdir()
        toy.pace(seconds)
        toy.set_beams(1)
        toy.set_cells(cells)
        toy.dvc("init", "--no-scm", "-q")
        return toy

    def copy(self, root: Path) -> Toy:
        """The project as it is, elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return Toy(root)

    def set_cells(self, cells: list[str]) -> None:
        """Make these the cells of the grid."""
        YAML().dump({"cells": {cell: {} for cell in cells}}, self.root / "cells.yaml")
        scores = "".join(f"\n      - score-{cell}.json" for cell in cells)
        (self.root / "dvc.yaml").write_text(DVC_YAML.replace(" [scores]", scores))
        for cell in cells:
            if not (self.root / f"cells/{cell}.json").exists():
                self.set_lr(cell, 0.1)

    def set_lr(self, cell: str, lr: float) -> None:
        """Set what the training of one cell depends on."""
        (self.root / f"cells/{cell}.json").write_text(json.dumps({"train": {"lr": lr, "steps": 5}}) + "\n")

    def set_beams(self, beams: int) -> None:
        """Set what all evaluations depend on."""
        (self.root / "evaluate.json").write_text(json.dumps({"beams": beams}) + "\n")

    def pace(self, seconds: float, command: str | None = None) -> None:
        """Say how long commands take, or one of them."""
        (self.root / (f"seconds-{command}" if command else "seconds")).write_text(str(seconds))

    def dvc(self, *arguments: str) -> str:
        """Run DVC; it must succeed."""
        result = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.root, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `mhrctl run` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mhrctl", "run", *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def lines(self) -> list[list[str]]:
        """What commands have noted."""
        path = self.root / "ran"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def began(self) -> Counter[str]:
        """How often each command has begun."""
        return Counter(line[1] for line in self.lines() if line[0] == "begin")

    def forget(self) -> None:
        """Forget what has run."""
        (self.root / "ran").unlink(missing_ok=True)

    def at_once(self) -> int:
        """The most commands that ran at one time."""
        most = now = 0
        for line in self.lines():
            now += 1 if line[0] == "begin" else -1
            most = max(most, now)
        return most

    def lock(self) -> dict[str, object]:
        """dvc.lock as data, its stages in their order."""
        stages: dict[str, object] = json.loads(json.dumps(YAML(typ="safe").load(self.root / "dvc.lock")["stages"]))
        return stages

    def cached(self) -> list[str]:
        """The files of the cache, run-cache included."""
        cache = self.root / ".dvc/cache"
        return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())

    def repro(self, *targets: str) -> list[str]:
        """Run `dvc repro` in this process, which is quicker; the stages that it ran or restored."""
        from dvc.repo import Repo

        with self._inside(), Repo() as repo:
            return [stage.addressing for stage in repo.reproduce(targets=targets)]

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """In the project's folder, with DVC silent."""
        logging.disable(logging.CRITICAL)
        try:
            with chdir(self.root), warnings.catch_warnings(action="ignore"):
                yield
        finally:
            logging.disable(logging.NOTSET)

    def require_clean(self) -> None:
        """DVC must agree that all is up to date: nothing changed, nothing run."""
        from dvc.repo import Repo

        with self._inside(), Repo() as repo:
            assert repo.status() == {}
        assert self.repro() == []

    def files(self, stage: str, suffix: str) -> Path:
        """A file of a stage's job."""
        return self.root / f".dvc/tmp/mhrctl/{stage}.{suffix}"


def eventually(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def group_of(toy: Toy, stage: str) -> int:
    """The process group of a stage's job."""
    path = toy.files(stage, "pid")
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), f"{stage} runs")
    return int(path.read_text().split()[1])


def is_running(group: int) -> bool:
    """Whether a process group has a process that is no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False
