"""A few steps of each stage are run and timed, by the stages themselves: what they would write goes into a temporary folder.

A stage is ended from outside as soon as its bar has advanced often enough. Nothing of the project is written.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from mhrctl.adapters.build import adapter_class
from mhrctl.artifacts.cards import try_card
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.fields import MAX_COUNT, Closed
from mhrctl.config.resolve import Settings
from mhrctl.config.sections import PretrainParams
from mhrctl.progress import Bar, Track, silent
from mhrctl.stages.adapt import adapt
from mhrctl.stages.average import average
from mhrctl.stages.evaluate import evaluate
from mhrctl.stages.pretrain import pretrain
from mhrctl.tools.operations import BATCH_ROWS, FORWARD, FROZEN, WHOLE, Suite, validations
from mhrctl.tools.timing import IMPORTS, PHASES, Job
from mhrctl.training.execution import Execution

STEPS = 5
"""Steps that are timed, after one that is not: the first of all has more to do."""
STEP_SECONDS = 30.0
"""Seconds after which fewer are enough."""
MEASURE_SECONDS = 300.0
"""Seconds after which no further cell is measured: what is known of the others says enough of it."""
BEARABLE = 60.0
"""Seconds that a stage may take to be measured: the time of others follows from the pre-training's."""
ALONE = {"validate_every": 0, "keep": "last", "align_every": 0}
"""Settings of a pre-training that only takes its steps."""


class _EnoughError(Exception):
    """Ends a stage of which enough is known."""


@dataclass
class _Watch:
    """A watch is the track of a stage: it times the steps and ends it.

    Attributes:
        steps: timed, after the first.
        least: steps that are timed, however long they take.
        total: of the work that has begun.
        began: when it did.
        moments: when each step ended.
    """

    steps: int = STEPS
    least: int = 1
    total: int = 0
    began: float = 0.0
    moments: list[float] = field(default_factory=list)

    @contextmanager
    def track(self, description: str, total: int, *, about: str = "") -> Iterator[Bar]:  # noqa: ARG002 - the protocol's
        """Begin to time."""
        self.total, self.began = total, _now()
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:  # noqa: ARG002 - the protocol's
        """Note a step, and end the stage if that is enough."""
        self.moments.append(_now())
        late = len(self.moments) >= self.least and self.moments[-1] - self.began > STEP_SECONDS
        if len(self.moments) > self.steps or late:
            raise _EnoughError

    def resume(self, steps: int) -> None:
        """Nothing was done before."""

    @property
    def step(self) -> float:
        """Seconds of a step; 0 of a stage that took none."""
        if len(self.moments) < 2:
            return self.moments[0] - self.began if self.moments else 0.0
        return median(end - start for start, end in pairwise(self.moments))

    @property
    def mean(self) -> float:
        """Mean seconds of all steps, of which the first has no more to do than others."""
        return (self.moments[-1] - self.began) / len(self.moments) if self.moments else 0.0


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


@dataclass(frozen=True)
class Measured:
    """This is what was measured.

    Attributes:
        seconds: {key of a job: seconds of all of it}.
        memory: bytes at the most: of a GPU what was allocated, of a CPU's process all that it took.
        cells: that were measured, of those that differ in more than the seed.
        kinds: of the latter.
    """

    seconds: dict[str, float]
    memory: int
    cells: int
    kinds: int


def why_unmeasurable(settings: Settings, project: Project) -> str | None:
    """Say why no step can be taken yet, in a few words; None if it can."""
    for stage in ("prepare", "backbone"):
        folder = project.output(stage)
        card = try_card(folder)
        if card is None:
            return f"run `mhrctl {stage}` first"
        wanted: Closed = getattr(settings.params, stage)
        if card.params != wanted.model_dump(mode="json"):
            return f"params.yaml has changed since {folder} was made; run `mhrctl {stage}` first"
    return None


def measure(
    jobs: Sequence[Job],
    *,
    project: Project,
    execution: Execution,
    estimated: Mapping[str, float],
    suite: Suite,
) -> Measured:
    """Time some steps of the jobs, one of each kind.

    Args:
        jobs: of the project.
        project: whose outputs of prepare and backbone are read.
        execution: how stages run; its track shows which cell is measured.
        estimated: {job: seconds} by its operations, which say what would take too long to be measured.
        suite: of the project, with its backbone.
    """
    cells = _one_of_each(jobs)
    seconds: dict[str, float] = {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    began, done = perf_counter(), 0
    with execution.track("measure", len(cells)) as bar, tempfile.TemporaryDirectory(prefix="mhrctl-check-") as folder:
        for cell, params in cells:
            if done and perf_counter() - began > MEASURE_SECONDS:
                break
            bench = _Bench(cell, params, project, Path(folder) / cell.name, execution, estimated, suite)
            seconds |= bench.measured(seconds)
            done += 1
            bar.advance(note=cell.label)
    return Measured(seconds, _memory(), done, len(cells))


def _one_of_each(jobs: Sequence[Job]) -> list[tuple[Cell, CellParams]]:
    """The first cell of all that differ in more than the seed, or in what a search tries."""
    chosen: dict[str, tuple[Cell, CellParams]] = {}
    for job in jobs:
        if job.command == "evaluate" and job.cell and job.params and job.cell.trial <= 1:
            chosen.setdefault(job.cell.label, (job.cell, job.params))
    return list(chosen.values())


def _memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@dataclass(frozen=True)
class _Bench:
    """A bench measures the stages of one cell.

    Attributes:
        cell: that is measured.
        params: of it.
        project: whose outputs are read.
        folder: that is written into.
        execution: how a stage runs, but for the track that it reports to.
        estimated: {job: seconds} by its operations.
        suite: of the project, with its backbone.
    """

    cell: Cell
    params: CellParams
    project: Project
    folder: Path
    execution: Execution
    estimated: Mapping[str, float]
    suite: Suite

    @property
    def _inputs(self) -> dict[str, Path]:
        return {"prepared": self.project.output("prepare"), "backbone": self.project.output("backbone")}

    def measured(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return {key of a job: seconds} of the stages of the cell that can be measured.

        Args:
            before: what was measured with other cells, and is not measured again.
        """
        seconds: dict[str, float] = {}
        trained = self.cell.pretrain_cell
        if (key := f"pretrain@{trained.label}") not in before:
            seconds[key] = self._pretrain(trained, None)
        speed = self._speed(trained, before.get(key, seconds.get(key, 0.0)))
        if self.cell.extra_steps:
            seconds[f"pretrain@{self.cell.label}"] = self._pretrain(self.cell, self._start())
        elif not (self.cell.row.needs_index or self.cell.row.trains_nothing or self._replaces_weights()):
            # The first need the index, the next take no step, and the last need the disk.
            start, each = None, 0.0
            if self._is_bearable("adapt", self._adapted, speed):
                start = self._start()
                seconds[f"adapt@{self.cell.label}"], each = self._adapt(start)
            if self._is_bearable("evaluate", self._answered, speed):
                seconds[f"evaluate@{self.cell.label}"] = self._evaluate(start or self._start(), each)
        gc.collect()
        return seconds

    def _is_bearable(self, stage: str, share: Callable[[float], float], speed: float) -> bool:
        """Whether a stage can be measured in short time, by its estimate and how many times theirs others take."""
        return speed * share(self.estimated.get(f"{stage}@{self.cell.name}", 0.0)) < BEARABLE

    def _speed(self, trained: Cell, took: float) -> float:
        """How many times its estimate a pre-training takes."""
        expected = self.estimated.get(f"pretrain@{trained.name}", 0.0)
        return took / expected if expected else 1.0

    def _replaces_weights(self) -> bool:
        return adapter_class(self.cell.row).replaces_weights

    def _start(self) -> Path:
        """The output that adaptation starts from, of a pre-training without a step."""
        trained = self.cell.pretrain_cell
        bare = {"steps": 0, "uniform_steps": 0, "validate_examples": 0, **ALONE}
        out = self._run_pretrain(trained, self.params.pretrain.model_copy(update=bare), None, silent, "start")
        stage, origin = self.cell.origin if self.cell.extra_steps else self.cell.start
        if stage == "average":
            averaged = self.folder / "average" / origin.name
            average(origin, pretrained=out, out=averaged)
            return averaged
        return out

    def _run_pretrain(self, cell: Cell, params: PretrainParams, start: Path | None, track: Track, name: str) -> Path:
        out = self.folder / name / cell.name
        pretrain(
            cell,
            params,
            **self._inputs,
            start=start,
            root=self.project.root,
            out=out,
            log=self.folder / f"{name}.csv",
            scratch=self.folder / "scratch",
            execution=replace(self.execution, track=track),
        )
        return out

    def _pretrain(self, cell: Cell, start: Path | None) -> float:
        params, watch = self.params.pretrain, _Watch()
        called = _now()
        with suppress(_EnoughError):
            self._run_pretrain(cell, params.model_copy(update=ALONE), start, watch.track, "pretrain")
        if params.loras:
            return IMPORTS + _now() - called
        side_by_side = (
            min(self.suite.tasks.datasets, self.execution.speed.together) if cell.row.is_private and not cell.extra_steps else 1
        )
        examples = params.batch_size * params.accumulation * side_by_side
        times = 1 + (params.steps // params.validate_every if params.validate_every else 0)
        validated = times * self.suite.tasks.training * params.validate_examples
        share = FORWARD / (WHOLE if self._replaces_weights() else FROZEN)
        return IMPORTS + watch.began - called + watch.total * watch.step + validated / examples * watch.step * share

    def _adapt(self, start: Path) -> tuple[float, float]:
        """Return the seconds of an adaptation, and of an answer by an adapter of the task's own; 0 if none was given."""
        params, watch = self.params.adapt, _Watch(least=2)
        rows = self._validated
        seldom = {"validation": rows, "evaluate_every": MAX_COUNT, "evaluate_unit": "steps"}  # no step has one within
        called = _now()
        with suppress(_EnoughError):
            adapt(
                self.cell,
                params.model_copy(update=seldom),
                **self._inputs,
                start=start,
                out=self.folder / "adapt",
                scratch=self.folder / "scratch",
                execution=replace(self.execution, track=watch.track),
                root=self.project.root,
            )
        validation = max(0.0, watch.moments[0] - watch.began - watch.step) if watch.moments else 0.0
        answers = 0 if params.select == "loss" or params.validate_on == "test" else rows * self._side_by_side
        each = validation / answers if answers else 0.0
        more = max(1.0, params.validation / rows) if params.validate_on == "held_out" else 1.0
        validation *= more * self.suite.tasks.test / self._side_by_side
        return IMPORTS + watch.began - called + watch.total * watch.step + validations(params) * validation, each

    @property
    def _side_by_side(self) -> int:
        return max(1, min(self.suite.tasks.test, self.execution.speed.together))

    @property
    def _validated(self) -> int:
        """Examples of a task in the validation that is timed: as many as fill one batch."""
        return max(1, min(self.params.adapt.validation, BATCH_ROWS // (self._side_by_side * self.params.adapt.beams)))

    def _adapted(self, estimated: float) -> float:
        """About how long it takes to measure an adaptation, at the most: a validation and a few steps of all."""
        params, times = self.params.adapt, validations(self.params.adapt)
        share = (1 + STEPS) / max(1, params.steps) + self._validated / max(1, times * params.validation)
        return estimated * min(1.0, share) / math.ceil(self.suite.tasks.test / self._side_by_side)

    def _evaluate(self, start: Path, each: float) -> float:
        """Return the seconds of an evaluation.

        Args:
            start: which is scored before adaptation.
            each: seconds of an answer after it; 0 takes those of one before.
        """
        watch = _Watch()
        called = _now()
        with suppress(_EnoughError):
            evaluate(
                self.cell,
                self.params.evaluate,
                **self._inputs,
                start=start,
                adapted=None,
                out=self.folder / "evaluate",
                scores=self.folder / "scores.json",
                execution=replace(self.execution, track=watch.track),
            )
        before = math.ceil(self.suite.tasks.test / self._side_by_side) * watch.total * watch.mean
        return IMPORTS + watch.began - called + before + (self.suite.texts.tested * each or before)

    def _answered(self, estimated: float) -> float:
        """About how long it takes to answer a batch, by an estimate of all answers."""
        return estimated * min(1.0, BATCH_ROWS / max(1, PHASES * self.suite.texts.tested))
