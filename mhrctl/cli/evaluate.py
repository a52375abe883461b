"""`mhrctl evaluate` scores the test splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArguments,
    CellChoice,
    CellOption,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    SeedOption,
    VariantOption,
    chosen_cell,
    other_of,
    output_of,
    require_alone,
)
from mhrctl.cli.harness import (
    FewshotOption,
    HarnessAdapterOption,
    HarnessOption,
    HarnessTasksOption,
    LimitOption,
    names_of,
    require_harness,
    run_harness,
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
    names: CellArguments = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: CellOption = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Score before adaptation only, which needs no output of adapt.")
    ] = False,
    harness: HarnessOption = [],
    harness_tasks: HarnessTasksOption = [],
    adapter: HarnessAdapterOption = None,
    limit: LimitOption = None,
    fewshot: FewshotOption = None,
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
    choice = CellChoice(method, heads, variant, seed, extra_steps, cell)
    choices = [replace(choice, name=name) for name in names or ()] or [choice]
    where, start, adapted = Project(project), None, None
    speed = Speed(together=together).without(off)
    require_harness(harness, {"--harness-tasks": harness_tasks, "--adapter": adapter, "--limit": limit, "--fewshot": fewshot})
    if tasks := names_of(harness):
        if zero_shot or track or force:
            raise ParamsError("--harness: takes no --zero-shot (but --adapter zero_shot), --track and --force; leave them out")
        read_all = [_settings(where, each, set_, recipe) for each in choices]
        run_harness(
            {point.name if point else BACKBONE: (point, params) for params, point, _ in read_all},
            tasks,
            project=where,
            folders=harness_tasks,
            adapter=adapter,
            limit=limit,
            fewshot=fewshot,
            device=device,
            threads=threads,
            device_map=device_map,
            speed=speed,
        )
        return
    if len(choices) > 1:
        raise ParamsError(f"{choices[1].name}: one cell at a time is evaluated, but for --harness; `mhrctl run` takes all")

    def read() -> tuple[EvaluateParams, Cell | None, Path | None]:
        return _settings(where, choices[0], set_, recipe)

    params, point, under = read()
    called = point.name if point else BACKBONE
    if point:
        start = output_of(where, point.start)
        adapted = None if zero_shot or point.extra_steps else where.output("adapt", called)
    out, scores = where.output("evaluate", called), where.scores(called)
    prepared, frozen = where.output("prepare"), where.output("backbone")
    made = provenance.of_evaluate(point, params, prepared=prepared, backbone=frozen, start=start, adapted=adapted, under=under)
    if nothing_to_do(made, out, scores, threads=expected_threads(threads, device), force=force):
        return
    accelerator = open_accelerator(device, threads)
    from mhrctl.stages.evaluate import evaluate as stage
    from mhrctl.training.execution import Execution

    with (
        locked(out),
        logging_run(where.run_log("evaluate", called), device=str(accelerator.device), threads=taken_threads()),
        unedited(read, *made.watched),
        recording_of(track, where, made, called, group=point.label if point else BACKBONE) as recorder,
    ):
        metrics = stage(
            point,
            params,
            prepared=prepared,
            backbone=frozen,
            start=start,
            adapted=adapted,
            under=under,
            out=out,
            scores=scores,
            execution=Execution(accelerator, speed, display.track, recorder, device_map=device_map),
            root=where.root,
        )
    for line in _lines(metrics):
        display.done(f"{called} {line}")
    display.done(f"wrote {out} and {scores}")


def _settings(
    where: Project, choice: CellChoice, sets: Sequence[str], recipe: str | None
) -> tuple[EvaluateParams, Cell | None, Path | None]:
    """The settings of an evaluation, the cell that is chosen (none is the bare backbone), and the output under its adapters."""
    if choice.name == BACKBONE and choice.method is None:
        choice = replace(choice, method=BACKBONE, name=None)
    if choice.cell == BACKBONE:
        require_alone(choice, sets, recipe)
        return read_bare(where), None, None
    if choice.method == BACKBONE:
        if choice != CellChoice(BACKBONE):
            raise ParamsError("--method backbone has no --heads, --variant, --extra-steps, --seed and --cell; leave them out")
        return open_project(where.root, sets, recipe, reads=["evaluate"])[1].params.evaluate, None, None
    params = chosen_cell(where.root, choice, sets, recipe, reads="evaluate")[1]
    return params.evaluate, params.cell, other_of(where, params.under("evaluate"))


def _lines(metrics: CellMetrics) -> Iterator[str]:
    """A line for each phase: the score, and exact match beside it where answers are texts and it is not the score itself."""
    beside = not is_over_choices(metrics.metric) and metrics.metric != "exact_match"
    for phase in PHASES:
        if means := metrics.means(phase):
            score = f"{title_of(metrics.metric)} {means[SCORE]:.1f}"
            exact = f", exact match {means['exact_match']:.1f}" if beside else ""
            yield f"{phase.replace('_', '-')}: {score}{exact}"
