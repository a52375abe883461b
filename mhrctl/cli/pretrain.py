"""`mhrctl pretrain` learns adapters on all training tasks."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean

from mhrctl.artifacts import provenance
from mhrctl.artifacts.facts import Kept
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.names import LOG, VALIDATION, Project
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
    launched_processes,
    nothing_to_do,
    open_accelerator,
    recording_of,
)
from mhrctl.cli.sharding import ShardOption, take_sharding
from mhrctl.cli.signals import seconds_between_checkpoints, stopping
from mhrctl.cli.threads import expected_threads, taken_threads
from mhrctl.config.cells import CellParams
from mhrctl.errors import counted, listed
from mhrctl.models.speed import Speed

NAMED = 8
"""Adapters of a pool that the last line names; the card has them all."""


def pretrain(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
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
    shard: ShardOption = False,
    track: TrackOption = [],
    force: ForceOption = False,
) -> None:
    """Learn skills and routing together on the training tasks; with `--extra-steps`, train a single adapter on."""
    choice = CellChoice(method, heads, variant, seed, extra_steps, cell, name)

    def read() -> tuple[Project, CellParams]:
        return chosen_cell(project, choice, set_, recipe, reads="pretrain")

    where, params = read()
    sharding = take_sharding(shard)
    speed = Speed(together=together, checkpointing=checkpointing, compile=compile).without(off)
    trained = params.cell if params.cell.extra_steps else params.cell.pretrain_cell
    out, log = where.output("pretrain", trained.name), where.training_log(trained.name)
    prepared, frozen = where.output("prepare"), where.output("backbone")
    start = output_of(where, trained.origin) if trained.extra_steps else None
    under, pool = other_of(where, params.under("pretrain")), other_of(where, params.pool())
    made = provenance.of_pretrain(
        trained,
        params.pretrain,
        prepared=prepared,
        backbone=frozen,
        start=start,
        under=under,
        pool=pool,
        root=where.root,
        processes=launched_processes(),
    )
    if nothing_to_do(made, out, log, threads=expected_threads(threads, device), force=force):
        return
    began = time.monotonic()
    accelerator = open_accelerator(device, threads, many_processes=True)
    from mhrctl.stages.pretrain import pretrain as stage
    from mhrctl.training.execution import Execution

    with (
        locked(out) if accelerator.is_main_process else nullcontext(),
        logging_run(where.run_log("pretrain", trained.name), device=str(accelerator.device), threads=taken_threads()),
        unedited(lambda: read()[1].pretrain, *made.watched),
        recording_of(track, where, made, trained.name, group=trained.label, main=accelerator.is_main_process) as recorder,
    ):
        card = stage(
            trained,
            params.pretrain,
            prepared=prepared,
            backbone=frozen,
            start=start,
            under=under,
            pool=pool,
            root=where.root,
            out=out,
            log=log,
            scratch=where.scratch,
            execution=Execution(
                accelerator,
                speed,
                display.track,
                recorder,
                display.warn,
                device_map=device_map,
                sharding=sharding,
                stop=partial(stopping, launched=launched_processes() > 1),
                checkpoint_seconds=seconds_between_checkpoints(),
            ),
        )
    counts = card.facts.parameters
    if card.facts.pool:
        taken = counted(len(card.facts.pool), "LoRA")
        display.done(f"imported {trained.name}: {taken} that others trained, {counts.multi_task:,} adapter parameters")
        return
    if accelerator.is_main_process:
        reached = _reached(out)
        reached.append(f"{counts.multi_task:,} adapter and {counts.routing:,} routing parameters")
        took = display.duration(time.monotonic() - began)
        display.done(
            f"pre-trained {trained.name} in {took}: {', '.join(reached)}{_kept(card.facts.kept)}{_began(card.facts.skills)}"
        )


def _reached(out: Path) -> list[str]:
    """What a pre-training has come to: the first loss of its log and the last, and the mean validation loss of its tasks."""
    rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    losses = [row["loss"] for row in (rows[:1] + rows[-1:])[-2:]]
    with (out / VALIDATION).open(newline="") as stream:
        validated = [float(row["loss"]) for row in csv.DictReader(stream)]
    reached = [f"loss {' -> '.join(f'{loss:.3g}' for loss in losses)}"] if losses else []
    return [*reached, f"validation {fmean(validated):.3g}"] if validated else reached


def _kept(kept: Sequence[Kept]) -> str:
    """Which steps are kept, where they are the best."""
    if not kept:
        return ""
    steps = [each.step for each in kept]
    if len(steps) > 1:
        span = " to ".join(f"{step:,}" for step in sorted({min(steps), max(steps)}))
        return f"; kept the best step of each: {span}"
    return f"; kept step {steps[0]:,}, whose validation loss is {kept[0].validation_loss:.4f}"


def _began(skills: Sequence[str]) -> str:
    """Which adapters of a pool the skills were at the beginning."""
    return f"; skills from {listed(skills, NAMED)}" if skills else ""
