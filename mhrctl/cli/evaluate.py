"""`mhrctl evaluate` scores the test splits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    CellOption,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    SeedOption,
    VariantOption,
    chosen_cell,
    output_of,
    require_alone,
)
from mhrctl.cli.options import (
    HERE,
    DeviceMapOption,
    DeviceOption,
    ForceOption,
    OffOption,
    ProjectOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    TogetherOption,
    TrackOption,
    nothing_to_do,
    open_accelerator,
    open_project,
    recording_of,
)
from mhrctl.cli.threads import expected_threads, taken_threads
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import ParamsError
from mhrctl.evaluation.metrics import is_over_choices, title_of
from mhrctl.evaluation.scores import PHASES, SCORE, CellMetrics
from mhrctl.models.speed import Speed
from mhrctl.tools.grid import read_bare


def evaluate(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: CellOption = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Score before adaptation only, which needs no output of adapt.")
    ] = False,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    device_map: DeviceMapOption = None,
    threads: ThreadsOption = None,
    together: TogetherOption = Speed.together,
    off: OffOption = [],
    track: TrackOption = [],
    force: ForceOption = False,
) -> None:
    """Score the test splits, zero-shot and after adaptation; `mhrctl evaluate backbone` scores the bare backbone."""
    if name == BACKBONE and method is None:
        method, name = BACKBONE, None
    choice = CellChoice(method, heads, variant, seed, extra_steps, cell, name)

    def read() -> tuple[EvaluateParams, Cell | None]:
        if cell == BACKBONE:
            require_alone(choice, set_, recipe)
            return read_bare(where), None
        if method == BACKBONE:
            if choice != CellChoice(BACKBONE):
                raise ParamsError(
                    "--method backbone has no --heads, --variant, --extra-steps, --seed and --cell; leave them out"
                )
            return open_project(project, set_, recipe, reads=["evaluate"])[1].params.evaluate, None
        params = chosen_cell(project, choice, set_, recipe, reads="evaluate")[1]
        return params.evaluate, params.cell

    where, start, adapted = Project(project), None, None
    params, point = read()
    called = point.name if point else BACKBONE
    if point:
        start = output_of(where, point.start)
        adapted = None if zero_shot or point.extra_steps else where.output("adapt", called)
    speed = Speed(together=together).without(off)
    out, scores = where.output("evaluate", called), where.scores(called)
    prepared, frozen = where.output("prepare"), where.output("backbone")
    made = provenance.of_evaluate(point, params, prepared=prepared, backbone=frozen, start=start, adapted=adapted)
    if nothing_to_do(made, out, scores, threads=expected_threads(threads, device), force=force):
        return
    accelerator = open_accelerator(device, threads)
    from mhrctl.stages.evaluate import evaluate as stage
    from mhrctl.training.execution import Execution

    with (
        locked(out),
        logging_run(where.run_log("evaluate", called), device=str(accelerator.device), threads=taken_threads()),
        unedited(read, *made.watched),
        recording_of(track, where, "evaluate", called) as recorder,
    ):
        metrics = stage(
            point,
            params,
            prepared=prepared,
            backbone=frozen,
            start=start,
            adapted=adapted,
            out=out,
            scores=scores,
            execution=Execution(accelerator, speed, display.track, recorder, device_map=device_map),
        )
    for line in _lines(metrics):
        display.done(f"{called} {line}")
    display.done(f"wrote {out} and {scores}")


def _lines(metrics: CellMetrics) -> Iterator[str]:
    """A line for each phase: the score, and exact match beside it where answers are texts and it is not the score itself."""
    beside = not is_over_choices(metrics.metric) and metrics.metric != "exact_match"
    for phase in PHASES:
        if means := metrics.means(phase):
            score = f"{title_of(metrics.metric)} {means[SCORE]:.1f}"
            exact = f", exact match {means['exact_match']:.1f}" if beside else ""
            yield f"{phase.replace('_', '-')}: {score}{exact}"
