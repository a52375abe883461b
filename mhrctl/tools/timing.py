"""How long a project takes is said before it runs: by the logs of stages that ran here, by measured steps, or by operations.

What is known of a stage's cells says how fast the device is, so that what is not known follows from it in proportion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from mhrctl.artifacts.cards import try_card
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell, CellParams, grid_cells, reads_index
from mhrctl.config.fields import Closed
from mhrctl.config.methods import BACKBONE
from mhrctl.config.resolve import Settings, resolve_cell
from mhrctl.config.sections import AdaptParams, BackboneParams, EvaluateParams, PretrainParams
from mhrctl.errors import counted
from mhrctl.running.progress import logged_seconds
from mhrctl.tools.grid import stage_cells
from mhrctl.tools.operations import Suite, Work

Known = Literal["measured", "logged", "scaled", "estimated"]
"""By steps that were measured, by earlier runs, by operations at the speed that these show, by operations at the device's."""
SECTIONS: Mapping[str, type[Closed]] = {"pretrain": PretrainParams, "adapt": AdaptParams, "evaluate": EvaluateParams}
COMPUTING = frozenset({"backbone", *SECTIONS})
IMPORTS = 0.3
"""Seconds until a stage's log begins, in a process forked from one that has torch; on a GPU it is a few seconds of minutes."""
START = IMPORTS + 0.7
"""Seconds until its work begins: the weights of a small backbone, too."""
SHORT = {"average": START, "index": 2 * START, "report": START}
"""Seconds of stages that compute little."""
PHASES = 2


@dataclass(frozen=True)
class Device:
    """A device is known by what it computes in practice, in training steps of the sizes that are usual here.

    Attributes:
        name: `1 thread of this CPU`, or the GPU's.
        operations: a second.
        call: seconds that each linear layer of a forward pass takes at least.
        is_gpu: whether it is a GPU.
    """

    name: str
    operations: float
    call: float
    is_gpu: bool = False

    @property
    def rate(self) -> str:
        """Its operations a second, as people read them."""
        unit, size = ("GFLOP/s", 1e9) if self.operations < 1e12 else ("TFLOP/s", 1e12)
        return f"{self.operations / size:,.0f} {unit}"

    def seconds(self, work: Work, layers: int) -> float:
        """Return how long work takes."""
        return work.operations / self.operations + work.calls * layers * self.call


CORE, CORE_CALL = 30e9, 50e-6
"""Of a CPU's core. The demo's steps, and those of a T5 of 60 million weights, came to 25 to 45 thousand million operations."""
GPU_CALL, SHARE = 40e-6, 0.3
"""Of a GPU, and the part of its peak that training steps come to."""
PEAKS: Mapping[str, tuple[float, float]] = {
    "H200": (989e12, 67e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91e12),
    "L40": (181e12, 90e12),
    "L4": (121e12, 30e12),
    "A10": (125e12, 31e12),
    "A6000": (155e12, 38e12),
    "4090": (165e12, 82e12),
    "3090": (71e12, 35e12),
    "V100": (15.7e12, 15.7e12),
    "T4": (8.1e12, 8.1e12),
    "Apple": (5e12, 5e12),
}
"""{what is in a GPU's name: operations a second at its peak, in bf16 and in fp32}; alike where it does not have bf16."""
ANY_GPU = (60e12, 20e12)


def cpu(threads: int) -> Device:
    """Return the CPU with so many threads."""
    return Device(f"{counted(threads, 'thread')} of this CPU", CORE * threads, CORE_CALL)


def gpu(name: str, *, halves: bool) -> Device:
    """Return a GPU.

    Args:
        name: by its driver.
        halves: whether it computes in bf16.
    """
    peaks = next((peaks for part, peaks in PEAKS.items() if part in name), ANY_GPU)
    return Device(name, SHARE * peaks[0 if halves else 1], GPU_CALL, is_gpu=True)


@dataclass(frozen=True)
class Job:
    """A job is a stage, for one cell if it has any.

    Attributes:
        command: that does it.
        cell: for which it does it; None of a stage without cells, and of the bare backbone.
        params: of the cell.
        bare: whether it evaluates the bare backbone.
    """

    command: str
    cell: Cell | None = None
    params: CellParams | None = None
    bare: bool = False

    @property
    def name(self) -> str:
        """What dvc.yaml and `mhrctl run` call it, but for a suffix of the stage."""
        return f"{self.command}@{self.cell.name}" if self.cell else f"{self.command}-{BACKBONE}" * self.bare or self.command

    @property
    def key(self) -> str:
        """What its times are known by: those of all seeds are alike."""
        return f"{self.command}@{self.cell.label}" if self.cell else self.name


def jobs_of(settings: Settings) -> list[Job]:
    """Return all jobs of a project, but for those that take no time."""
    cells = grid_cells(settings.params)
    named = {cell.name: cell for cell in [*(cell.pretrain_cell for cell in cells), *cells]}
    params = {name: resolve_cell(settings, cell) for name, cell in named.items()}
    jobs = [Job("prepare"), Job("backbone")]
    by_index = [cell.name for cell in cells if reads_index(cell.row, params[cell.name].adapt)]
    for stage, names in stage_cells(cells, by_index).items():
        command = stage.partition("_")[0]
        jobs += [Job(command, named[name], params[name]) for name in names if command != "index"]
        jobs += [Job("index")] if command == "index" and names else []
    return [*jobs, Job("evaluate", bare=True), Job("report")]


def work_of(job: Job, settings: Settings, suite: Suite) -> Work | None:
    """Return how much a job computes; None if that is not known."""
    params = settings.params
    if job.command == "backbone":
        return suite.backbone(params.backbone.scratch) if params.backbone.source == "scratch" else Work()
    if job.bare:
        return suite.evaluate(params.evaluate, phases=1)
    if job.cell is None or job.params is None:
        return None
    return _work(job.cell, job.params.pretrain, job.params.adapt, job.params.evaluate, suite)[job.command]


def _work(
    cell: Cell, pretrain: PretrainParams, adapt: AdaptParams, evaluate: EvaluateParams, suite: Suite
) -> dict[str, Work | None]:
    extra = bool(cell.extra_steps)
    return {
        "pretrain": suite.pretrain(cell.row, pretrain, extra=extra),
        "average": None,
        "adapt": suite.adapt(cell.row, adapt),
        "evaluate": suite.evaluate(evaluate, phases=1 if extra or cell.row.routes_queries else PHASES),
    }


def logged(jobs: Iterable[Job], settings: Settings, project: Project, suite: Suite | None) -> dict[str, float]:
    """Return {job: seconds} of those that have run here.

    Where the settings have changed since, by the card of the output, the time changes with the work.
    """
    seconds: dict[str, float] = {}
    for job in jobs:
        cell = BACKBONE if job.bare else job.cell.name if job.cell else None
        took = logged_seconds(project.run_log(job.command, cell))
        if took is None:
            continue
        ratio = _ratio(job, settings, project, suite)
        if ratio is not None:
            seconds[job.name] = IMPORTS + took * ratio
    return seconds


def _ratio(job: Job, settings: Settings, project: Project, suite: Suite | None) -> float | None:
    """How much more work a job is than when it last ran; None if that says nothing of it."""
    card = try_card(project.output(job.command, job.cell.name if job.cell else None))
    if card is None:
        return 1.0
    if job.command == "backbone":
        return _backbone_ratio(card.params, settings, suite)
    section = SECTIONS.get(job.command)
    if section is None or job.cell is None or job.params is None or suite is None:
        return 1.0
    try:
        before = section.model_validate(card.params.get(job.command, {}))
    except ValidationError:
        return None
    sections: dict[str, Any] = {name: getattr(job.params, name) for name in SECTIONS}
    now, then = (_work(job.cell, **each, suite=suite)[job.command] for each in (sections, {**sections, job.command: before}))
    return now.operations / then.operations if now and then and then.operations else 1.0


def _backbone_ratio(before: Mapping[str, object], settings: Settings, suite: Suite | None) -> float | None:
    try:
        then, now = BackboneParams.model_validate(before), settings.params.backbone
    except ValidationError:
        return None
    size = {"steps", "batch_size", "lr", "denoising"}  # what leaves it a model of the same weights
    if (then.source, then.name) != (now.source, now.name):
        return None
    if now.source != "scratch":
        return 1.0
    if then.scratch.model_dump(exclude=size) != now.scratch.model_dump(exclude=size):
        return None
    works = [suite.backbone(each.scratch).operations if suite else 1.0 for each in (now, then)]
    return works[0] / works[1] if works[1] else 1.0


@dataclass(frozen=True)
class Prediction:
    """A prediction is how long all jobs of a project take.

    Attributes:
        seconds: {job: seconds} of those of which anything is known.
        known: {command: how, for most of its cells}.
        missing: commands of which nothing is known.
    """

    seconds: Mapping[str, float]
    known: Mapping[str, Known]
    missing: Sequence[str]

    @property
    def total(self) -> float:
        """Seconds in all, one job at a time."""
        return sum(self.seconds.values())

    @property
    def longest(self) -> tuple[str, float]:
        """The longest job and its seconds."""
        return max(self.seconds.items(), key=lambda item: item[1])

    def commands(self, known: Known) -> list[str]:
        """The commands whose times are known so."""
        return [command for command, how in self.known.items() if how == known]

    @property
    def is_rough(self) -> bool:
        """Whether a good part of the time is estimated."""
        rough = {*self.commands("scaled"), *self.commands("estimated")}
        return sum(took for job, took in self.seconds.items() if job.partition("@")[0] in rough) > self.total / 10


def predict(
    jobs: Sequence[Job], *, estimated: Mapping[str, float], measured: Mapping[str, float], logs: Mapping[str, float]
) -> Prediction:
    """Say how long jobs take.

    Args:
        jobs: all of them.
        estimated: {job: seconds} by its operations.
        measured: {key of a job: seconds} by some of its steps.
        logs: {job: seconds} of those that ran before; what is measured now counts more.
    """
    sure = {job.name: measured.get(job.key, logs.get(job.name)) for job in jobs}
    certain = {name: took for name, took in sure.items() if took is not None}
    by_command: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_command[job.command].append(job)
    overall = _speed([job for job in jobs if job.command in COMPUTING], certain, estimated)
    seconds: dict[str, float] = {}
    known: dict[str, Known] = {}
    missing: list[str] = []
    for command, of_command in by_command.items():
        of_own = [certain[job.name] for job in of_command if job.name in certain]
        speed = _speed(of_command, certain, estimated)
        for job in of_command:
            if job.name in certain:
                seconds[job.name] = certain[job.name]
            elif job.name in estimated and not (of_own and speed is None):
                general = overall if command in COMPUTING else None
                seconds[job.name] = estimated[job.name] * (speed or general or 1.0)
            elif of_own:
                seconds[job.name] = sum(of_own) / len(of_own)
        if not any(job.name in seconds for job in of_command):
            missing.append(command)
        elif any(job.key in measured for job in of_command):
            known[command] = "measured"
        else:
            known[command] = "logged" if of_own else "scaled" if overall and command in COMPUTING else "estimated"
    return Prediction(seconds, known, missing)


def _speed(jobs: Iterable[Job], certain: Mapping[str, float], estimated: Mapping[str, float]) -> float | None:
    """How many times the estimate of jobs their known time is; None where nothing is known."""
    both = [(certain[job.name], estimated[job.name]) for job in jobs if job.name in certain and estimated.get(job.name)]
    expected = sum(estimate for _, estimate in both)
    return sum(took for took, _ in both) / expected if expected else None


def estimated_seconds(jobs: Iterable[Job], settings: Settings, suite: Suite, device: Device) -> dict[str, float]:
    """Return {job: seconds} by operations, of the jobs whose work is known or little."""
    works: dict[str, Work | None] = {}
    seconds: dict[str, float] = {}
    for job in jobs:
        if job.command in SHORT:
            seconds[job.name] = SHORT[job.command]
        elif (work := works.setdefault(job.name, work_of(job, settings, suite))) is not None:
            seconds[job.name] = START + device.seconds(work, suite.weights.layers)
    return seconds
