"""`mhrctl adapt` adapts to each test task from few shots."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from statistics import fmean

from mhrctl.artifacts import provenance
from mhrctl.artifacts.facts import AdaptFacts
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import TASKS, VALIDATION, Project
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    CellOption,
    HeadsOption,
    MethodOption,
    SeedOption,
    VariantOption,
    chosen_cell,
    other_of,
    output_of,
)
from mhrctl.cli.options import (
    HERE,
    CheckpointingOption,
    CompileOption,
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
    recording_of,
)
from mhrctl.cli.signals import seconds_between_checkpoints, stopping
from mhrctl.cli.threads import expected_threads, taken_threads
from mhrctl.config.cells import CellParams
from mhrctl.config.sections import AdaptParams
from mhrctl.data.table import shortage, task_metrics
from mhrctl.errors import ParamsError, counted, listed
from mhrctl.models.speed import Speed
from mhrctl.tools.check import unknown_task

NAMED = 5
"""Undecided tasks that the last line names; the card has them all."""


def adapt(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    device_map: DeviceMapOption = None,
    threads: ThreadsOption = None,
    together: TogetherOption = Speed.together,
    off: OffOption = [],
    checkpointing: CheckpointingOption = False,
    compile: CompileOption = False,  # noqa: A002 - the option's name
    track: TrackOption = [],
    force: ForceOption = False,
) -> None:
    """Adapt to each test task from a few examples."""
    choice = CellChoice(method, heads, variant, seed, cell=cell, name=name)

    def read() -> tuple[Project, CellParams]:
        return chosen_cell(project, choice, set_, recipe, reads="adapt")

    where, params = read()
    speed = Speed(together=together, checkpointing=checkpointing, compile=compile).without(off)
    if said := unknown_task(params.adapt.epoch_steps, where):
        raise ParamsError(said)
    called = params.cell.name
    out = where.output("adapt", called)
    start = output_of(where, params.cell.start)
    prepared, frozen, index = where.output("prepare"), where.output("backbone"), where.output("index")
    under = other_of(where, params.under("adapt"))
    made = provenance.of_adapt(
        params.cell, params.adapt, prepared=prepared, backbone=frozen, start=start, index=index, root=where.root, under=under
    )
    if nothing_to_do(made, out, threads=expected_threads(threads, device), force=force):
        return
    asked = params.adapt
    if (prepared / TASKS).exists() and (short := shortage(prepared, shots=asked.shots, validation=asked.validation)):
        display.done(f"note: {short}")
    began = time.monotonic()
    accelerator = open_accelerator(device, threads)
    from mhrctl.stages.adapt import adapt as stage
    from mhrctl.training.execution import Execution

    with (
        locked(out),
        logging_run(where.run_log("adapt", called), device=str(accelerator.device), threads=taken_threads()),
        unedited(lambda: read()[1].adapt, *made.watched),
        recording_of(track, where, made, called, group=params.cell.label) as recorder,
    ):
        card = stage(
            params.cell,
            params.adapt,
            prepared=prepared,
            backbone=frozen,
            start=start,
            out=out,
            index=index,
            under=under,
            root=where.root,
            scratch=where.scratch,
            execution=Execution(
                accelerator,
                speed,
                display.track,
                recorder,
                display.warn,
                device_map=device_map,
                stop=stopping,
                checkpoint_seconds=seconds_between_checkpoints(),
            ),
        )
    facts = card.facts
    took = display.duration(time.monotonic() - began)
    parameters = f"{counted(facts.parameters.adaptation, 'parameter')} a task" if facts.parameters.adaptation else "no training"
    reached = [*_reached(facts, params.adapt, out, prepared), parameters]
    reached += [f"chosen with {_evaluations(facts)} evaluations"] if facts.evaluations else []
    adapted = f"adapted {called} to {counted(len(facts.tasks), 'task')} in {took}: {', '.join(reached)}"
    display.done(f"{adapted}{_undecided(facts)}")


def _reached(facts: AdaptFacts, params: AdaptParams, out: Path, prepared: Path) -> list[str]:
    """What an adaptation has come to: the mean of the tasks' best validation scores, and the steps that these are of."""
    if not facts.validation:
        return []
    mean = fmean(facts.validation.values())
    if params.select == "loss":
        said = f"validation loss {-mean:.3g}"
    else:
        from mhrctl.evaluation.metrics import title_of

        of_tasks = task_metrics(prepared)
        metrics = sorted({of_tasks[task] for task in facts.validation})
        said = f"validation {title_of(metrics[0]) + ' ' if len(metrics) == 1 else ''}{mean:.1f}"
    first = 0 if params.keep_start or not params.steps else 1
    best: dict[str, int] = {}
    with (out / VALIDATION).open(newline="") as stream:
        for row in csv.DictReader(stream):
            if int(row["step"]) >= first and float(row["score"]) == facts.validation[row["task"]]:
                best.setdefault(row["task"], int(row["step"]))
    steps = sorted({min(best.values()), max(best.values())}) if best else []
    which = f" (best step{'s' if len(steps) > 1 else ''} {' to '.join(f'{step:,}' for step in steps)})" if steps else ""
    return [said + which]


def _evaluations(facts: AdaptFacts) -> str:
    """How often an adapter of a pool was tried on a shot, and how often all on all would have been."""
    spent, exhaustive = (sum(counts) for counts in zip(*facts.evaluations.values(), strict=True))
    return f"{spent:,} of {exhaustive:,}"


def _undecided(facts: AdaptFacts) -> str:
    """Say in which tasks nothing chose the step; nothing where there is none."""
    if not facts.undecided:
        return ""
    zero = sum(facts.validation[task] == 0 for task in facts.undecided)
    all_zero = f", and was 0 at every step in {zero}" if zero else ""
    which = f"{len(facts.undecided)} of {len(facts.tasks)} tasks{all_zero}"
    return f"; no validation score ever differed in {which}, so that the first was kept: {listed(facts.undecided, NAMED)}"
