"""`mhrctl check` says how long a project takes and how much memory, and how that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.options import open_accelerator
from mhrctl.cli.threads import expected_threads
from mhrctl.config.cells import CellParams
from mhrctl.config.resolve import Settings
from mhrctl.errors import counted, listed
from mhrctl.models.speed import Speed
from mhrctl.tools.estimate import Estimate, Shape, human_size
from mhrctl.tools.operations import Suite, Texts
from mhrctl.tools.timing import (
    SHORT,
    Device,
    Job,
    Prediction,
    cpu,
    estimated_seconds,
    gpu,
    jobs_of,
    logged,
    predict,
)

if TYPE_CHECKING:
    from mhrctl.tools.measure import Measured

PROGRAM = 6e8
"""Bytes that a stage's process takes for Python, torch and the other libraries."""
LARGE, LONG = 50_000_000, 12 * 3600
"""Weights of a backbone, and seconds of all stages, from which on it is worth a warning that there is no GPU."""


@dataclass(frozen=True)
class Machine:
    """A machine is where stages would run.

    Attributes:
        device: of `--device`.
        threads: of `--threads`.
        together: of `--together`: tasks in one batch.
    """

    device: str
    threads: int | None
    together: int = Speed.together

    def known(self, *, halves: bool) -> Device:
        """Return its device.

        Args:
            halves: whether the backbone is in bf16.
        """
        threads = expected_threads(self.threads, self.device)
        if self.device == "auto" and (name := _gpu_name()):
            return gpu(name, halves=halves)
        return cpu(threads or 1)


def _gpu_name() -> str | None:
    from mhrctl.running.machine import may_have_gpu

    if not may_have_gpu():
        return None
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else None


@dataclass(frozen=True)
class Times:
    """Times are what is known of how long a project takes.

    Attributes:
        prediction: by job.
        device: on which.
        measured: what was measured for it, if anything was.
        refused: why nothing was, if it was to be.
    """

    prediction: Prediction
    device: Device
    measured: Measured | None = None
    refused: str | None = None

    def lines(self, suite: Suite | None) -> list[str]:
        """Say it in a line or two."""
        notes = [f"note: no step was measured: {self.refused}"] if self.refused else []
        if not self.prediction.seconds:
            return [*notes, "time: not known: nothing has run here, and the size of the backbone or of the suite is not known"]
        longest, took = self.prediction.longest
        word = ("roughly" if self._is_of_real_texts(suite) else "up to roughly") if self.prediction.is_rough else "about"
        line = (
            f"time: {word} {about(self.prediction.total)} for all {counted(len(self.prediction.seconds), 'stage')} on"
            f" {self.device.name}, one at a time; the longest is {longest}, {about(took)}"
        )
        return [*notes, line, f"      ({'; '.join(self._ways(suite))})"]

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "seconds": self.prediction.total if self.prediction.seconds else None,
            "is_rough": self.prediction.is_rough,
            "device": self.device.name,
            "stages": self.prediction.seconds,
            "known": self.prediction.known,
            "not_known": self.prediction.missing,
            "measured_memory": self.measured and self.measured.memory,
            "not_measured_because": self.refused,
        }

    @staticmethod
    def _is_of_real_texts(suite: Suite | None) -> bool:
        return suite is None or suite.texts.measured

    def _ways(self, suite: Suite | None) -> list[str]:
        """How the times are known."""
        prediction, ways = self.prediction, []
        if self.measured and (commands := prediction.commands("measured")):
            done, kinds = self.measured.cells, self.measured.kinds
            some = "" if done == kinds else f" of {done} of {kinds} cells without their seeds"
            ways.append(f"a few steps{some} measured: {listed(commands)}")
        if commands := prediction.commands("logged"):
            ways.append(f"by earlier runs: {listed(commands)}")
        if commands := prediction.commands("scaled"):
            ways.append(f"by operations at the speed of these: {listed(commands)}")
        estimated = [command for command in prediction.commands("estimated") if command not in SHORT]
        if commands := estimated:
            longest = "" if self._is_of_real_texts(suite) else " and texts as long as settings allow"
            ways.append(f"by operations at {self.device.rate}{longest}: {listed(commands)}")
        if prediction.missing:
            ways.append(f"not known: {listed(prediction.missing)}")
        if estimated and not (self.measured or self.refused):
            ways.append("`mhrctl check --time` measures")
        return ways


def times(
    settings: Settings, where: Project, suite: Suite | None, machine: Machine, *, measures: bool, cells: Sequence[CellParams]
) -> Times:
    """Find out how long a project takes.

    Args:
        settings: of the project.
        where: the project.
        suite: with the backbone; None if either is not known.
        machine: where stages would run.
        measures: whether a few steps are run for it.
        cells: of the grid.
    """
    jobs = jobs_of(settings)
    device = machine.known(halves=any(each.pretrain.precision == "bf16" for each in cells))
    estimated = estimated_seconds(jobs, settings, suite, device) if suite else {}
    measured, refused = _measured(settings, where, suite, machine, jobs, estimated) if measures else (None, None)
    logs = logged(jobs, settings, where, suite)
    prediction = predict(jobs, estimated=estimated, measured=measured.seconds if measured else {}, logs=logs)
    return Times(prediction, device, measured, refused)


def _measured(
    settings: Settings,
    where: Project,
    suite: Suite | None,
    machine: Machine,
    jobs: Sequence[Job],
    estimated: Mapping[str, float],
) -> tuple[Measured | None, str | None]:
    """What some steps took, or why there are none."""
    if suite is None:
        return None, "the sizes of the suite or of the backbone are not known"
    accelerator = open_accelerator(machine.device, machine.threads)
    from mhrctl.tools.measure import measure, why_unmeasurable
    from mhrctl.training.execution import Execution

    if refused := why_unmeasurable(settings, where):
        return None, refused

    execution = Execution(accelerator, Speed(together=machine.together), display.track)
    return measure(jobs, project=where, execution=execution, estimated=estimated, suite=suite), None


def memory_line(
    estimates: Sequence[Estimate], cells: Sequence[CellParams], texts: Texts, measured: Measured | None, device: Device
) -> str:
    """Say how much memory a job takes, for batches of what size, and how that is known."""
    largest = max(cells, key=lambda each: each.pretrain.batch_size)
    tokens = texts.longest.inputs + texts.longest.targets
    of = f"with batches of {largest.pretrain.batch_size} x {tokens:,.0f} tokens"
    if measured:
        what = "allocated" if device.is_gpu else "of the process"
        return f"memory: {human_size(measured.memory)} at most a job {of} (measured in a few steps, all {what})"
    most = max(each.memory for each in estimates)
    return f"memory: about {human_size(most)} at most a job {of} (estimated), and {human_size(PROGRAM)} for the program itself"


def short_of_memory(estimates: Sequence[Estimate], measured: Measured | None, device: Device, *, total: int) -> str | None:
    """Say that a job takes more memory than there is, and what to do; None if it does not, or if a GPU has memory of its own.

    Args:
        estimates: of all cells.
        measured: what was measured, if anything was.
        device: where stages would run.
        total: bytes of memory that there are for programs.
    """
    most = measured.memory if measured else max(each.memory for each in estimates) + PROGRAM
    if device.is_gpu or most <= total:
        return None
    return (
        f"this machine has {human_size(total)} of memory; try fewer tasks in one batch (`mhrctl check --together 8`, then"
        " `export MHRCTL_TOGETHER=8`), or a smaller `batch_size` with more `accumulation`"
    )


def large_without_gpu(times: Times, shape: Shape, name: str | None) -> str | None:
    """Say that a large backbone will take long without a GPU, and what to do; None if it does not."""
    if times.device.is_gpu or shape.weights < LARGE or times.prediction.total < LONG:
        return None
    return (
        f"no GPU here, and {name or 'the backbone'} has {shape.weights / 1e6:,.0f}M parameters; try fewer steps first"
        " (`mhrctl check --set pretrain.steps=200` says how long they take), a smaller backbone, or a machine with a GPU"
    )


def about(seconds: float) -> str:
    """Say about how long something takes: 40 s, 9 min, 11 h, 3 days."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{max(1, round(seconds / size))} {unit}"
    return f"{round(seconds / 86400):,} days"
