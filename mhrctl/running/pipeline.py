"""The stages of a pipeline: their states in a run, their names and files, and what keeps one of them from running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mhrctl.errors import MhrctlError


class StageError(MhrctlError):
    """What keeps one stage from running or from being recorded; the others go on."""


class State(StrEnum):
    """Where a stage is in a run."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class StageFiles:
    """What a stage reads and writes, as paths relative to the DVC root.

    A hash is that of dvc.lock; what DVC's cache does not hold, files and outputs that git keeps, has none. For a dependency
    inside an output, such as a file of a folder, stands the output: commands read the cards beside the files that they name.
    """

    deps: Mapping[str, str | None]  # {path: hash}
    params: Sequence[str]  # parameter files
    outs: Sequence[str]  # outputs, metrics and plots, whether the cache holds them or git


def stage_of(name: str) -> str:
    """The stage of dvc.yaml that a cell's stage was expanded from: `pretrain` of `pretrain@mhr-h8-s0`."""
    return name.rsplit(":", 1)[-1].split("@", 1)[0]


def command_of(stage: str) -> str:
    """The command that a stage of dvc.yaml runs, by its name: `evaluate` of `evaluate-zero-shot`."""
    return stage.split("-", maxsplit=1)[0]
