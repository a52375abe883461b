"""One command a stage: options in, one call, one line of what was written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mhrctl.artifacts import outputs as artifacts
from mhrctl.artifacts import provenance
from mhrctl.artifacts.outputs import Project, logging_run, unedited
from mhrctl.cli import display
from mhrctl.cli.options import (
    CellOption,
    CheckpointingOption,
    CompileOption,
    DeviceOption,
    ExtraStepsOption,
    ForceOption,
    HeadsOption,
    MethodOption,
    OffOption,
    ProjectOption,
    RecipeOption,
    SeedOption,
    SetOption,
    TogetherOption,
    VariantOption,
    chosen_cell,
    launched_processes,
    nothing_to_do,
    open_accelerator,
    open_project,
    quieten,
)
from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import EvaluateParams, PrepareParams
from mhrctl.evaluation.scores import METRIC_NAMES
from mhrctl.models.speed import Speed
from mhrctl.tools.grid import read_bare

HERE = Path()
NAMED = 5
"""Unused tasks named for one reason; tasks.json has them all."""


def prepare(
    project: ProjectOption = HERE, set_: SetOption = [], recipe: RecipeOption = None, force: ForceOption = False
) -> None:
    """Read the suite's tasks, split them, put them into prompts and tokenise them."""
    where, settings = open_project(project, set_, recipe)
    out = where.output("prepare")
    if nothing_to_do(provenance.of_prepare(settings.params.prepare, root=where.root), out, force=force):
        return
    quieten()
    from mhrctl.stages.prepare import prepare as stage

    with (
        logging_run(where.run_log("prepare")),
        unedited(lambda: open_project(project, set_, recipe)[1].params.prepare, *_sources(where, settings.params.prepare)),
    ):
        table = stage(settings.params.prepare, root=where.root, out=out, scratch=where.scratch, track=display.track)
    display.err.print(_task_table(table))
    for reason, names in _by_reason(table["dropped"]).items():
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
        display.done(f"not used: {shown}: {reason}")
    for what, count in table["notes"].items():
        display.done(f"note: {count} {what}")
    display.done(f"wrote {out}")


def backbone(
    project: ProjectOption = HERE, set_: SetOption = [], device: DeviceOption = "auto", force: ForceOption = False
) -> None:
    """Fetch the frozen backbone, or train a small one on the suite."""
    where, settings = open_project(project, set_)
    out = where.output("backbone")
    made = provenance.of_backbone(settings.params.backbone, prepared=where.output("prepare"), root=where.root)
    if nothing_to_do(made, out, force=force):
        return
    accelerator = open_accelerator(device)
    from mhrctl.stages.backbone import backbone as stage

    folder = [where.root / str(settings.params.backbone.name)] if settings.params.backbone.source == "local" else []
    with (
        logging_run(where.run_log("backbone"), device=str(accelerator.device)),
        unedited(lambda: open_project(project, set_)[1].params.backbone, *made.parents.values(), *folder),
    ):
        card = stage(
            settings.params.backbone,
            prepared=where.output("prepare"),
            root=where.root,
            out=out,
            accelerator=accelerator,
            track=display.track,
        )
    display.done(
        f"wrote {out}: {card.facts['name']}, {card.facts['parameters']:,} parameters, {card.facts['fingerprint'][:12]}"
    )


def pretrain(
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
    together: TogetherOption = Speed.together,
    off: OffOption = [],
    checkpointing: CheckpointingOption = False,
    compile: CompileOption = False,  # noqa: A002 - the option's name
    force: ForceOption = False,
) -> None:
    """Learn skills and routing together on the training tasks; with `--extra-steps`, train a single adapter on."""

    def read() -> tuple[Project, CellParams]:
        return chosen_cell(project, set_, recipe, cell, method, heads, variant, seed, extra_steps, reads="pretrain")

    where, params = read()
    speed = Speed(together=together, checkpointing=checkpointing, compile=compile).without(off)
    own = params.cell if params.cell.extra_steps else params.cell.pretrain_cell
    out, log = where.output("pretrain", own.name), where.training_log(own.name)
    prepared, frozen = where.output("prepare"), where.output("backbone")
    start = _output(where, own.origin) if own.extra_steps else None
    made = provenance.of_pretrain(
        own, params.pretrain, prepared=prepared, backbone=frozen, start=start, processes=launched_processes()
    )
    if nothing_to_do(made, out, log, force=force):
        return
    accelerator = open_accelerator(device, many_processes=True)
    from mhrctl.stages.pretrain import pretrain as stage

    inputs = [frozen, *([start] if start else []), *made.parents.values()]
    with (
        logging_run(where.run_log("pretrain", own.name), device=str(accelerator.device)),
        unedited(lambda: read()[1].pretrain, *inputs),
    ):
        card = stage(
            own,
            params.pretrain,
            prepared=prepared,
            backbone=frozen,
            start=start,
            out=out,
            log=log,
            scratch=where.scratch,
            accelerator=accelerator,
            speed=speed,
            track=display.track,
        )
    counts = card.facts["parameters"]
    if accelerator.is_main_process:
        display.done(f"wrote {out}: {counts['multi_task']:,} adapter and {counts['routing']:,} routing parameters")


def average(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    force: ForceOption = False,
) -> None:
    """Average the skills of a pre-training cell into one ordinary LoRA."""
    where, params = chosen_cell(project, set_, None, cell, method, heads, variant, seed, reads="pretrain")
    own = params.cell.pretrain_cell
    out = where.output("average", own.name)
    pretrained = where.output("pretrain", own.name)
    if out.exists():  # else the stage says whether there can be an average
        card = artifacts.read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {own.options}")
        if nothing_to_do(provenance.of_average(pretrained, card), out, force=force):
            return
    from mhrctl.stages.average import average as stage

    with logging_run(where.run_log("average", own.name)), unedited(lambda: own, pretrained):
        stage(own, pretrained=pretrained, out=out)
    display.done(f"wrote {out}")


def adapt(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    together: TogetherOption = Speed.together,
    off: OffOption = [],
    checkpointing: CheckpointingOption = False,
    compile: CompileOption = False,  # noqa: A002 - the option's name
    force: ForceOption = False,
) -> None:
    """Adapt to each test task from a few examples."""

    def read() -> tuple[Project, CellParams]:
        return chosen_cell(project, set_, recipe, cell, method, heads, variant, seed, reads="adapt")

    where, params = read()
    speed = Speed(together=together, checkpointing=checkpointing, compile=compile).without(off)
    name = params.cell.name
    out = where.output("adapt", name)
    start = _output(where, params.cell.start)
    prepared, frozen, index = where.output("prepare"), where.output("backbone"), where.output("index")
    made = provenance.of_adapt(
        params.cell, params.adapt, prepared=prepared, backbone=frozen, start=start, index=index, root=where.root
    )
    if nothing_to_do(made, out, force=force):
        return
    accelerator = open_accelerator(device)
    from mhrctl.stages.adapt import adapt as stage

    inputs = [frozen, start, *made.parents.values()]
    with (
        logging_run(where.run_log("adapt", name), device=str(accelerator.device)),
        unedited(lambda: read()[1].adapt, *inputs),
    ):
        card = stage(
            params.cell,
            params.adapt,
            prepared=prepared,
            backbone=frozen,
            start=start,
            out=out,
            index=index,
            root=where.root,
            accelerator=accelerator,
            speed=speed,
            track=display.track,
        )
    display.done(f"wrote {out}: {len(card.facts['tasks'])} tasks, {card.facts['parameters']:,} trained parameters each")


def evaluate(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: CellOption = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Only before adaptation; no adapt output is needed.")] = False,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    together: TogetherOption = Speed.together,
    off: OffOption = [],
    force: ForceOption = False,
) -> None:
    """Score the test splits, zero-shot and after adaptation; `--method backbone` scores the bare backbone."""

    def read() -> tuple[EvaluateParams, Cell | None]:
        if cell == BACKBONE:
            return read_bare(where), None
        if method == BACKBONE:
            return open_project(project, set_, recipe)[1].params.evaluate, None
        params = chosen_cell(project, set_, recipe, cell, method, heads, variant, seed, extra_steps, reads="evaluate")[1]
        return params.evaluate, params.cell

    where, start, adapted = Project(project), None, None
    params, own = read()
    name = own.name if own else BACKBONE
    if own:
        start = _output(where, own.start)
        adapted = None if zero_shot or own.extra_steps else where.output("adapt", name)
    speed = Speed(together=together).without(off)
    out, scores = where.output("evaluate", name), where.scores(name)
    prepared, frozen = where.output("prepare"), where.output("backbone")
    made = provenance.of_evaluate(own, params, prepared=prepared, backbone=frozen, start=start, adapted=adapted)
    if nothing_to_do(made, out, scores, force=force):
        return
    accelerator = open_accelerator(device)
    from mhrctl.stages.evaluate import evaluate as stage

    with (
        logging_run(where.run_log("evaluate", name), device=str(accelerator.device)),
        unedited(read, frozen, *(path for path in (start, adapted) if path), *made.parents.values()),
    ):
        metrics = stage(
            own,
            params,
            prepared=prepared,
            backbone=frozen,
            start=start,
            adapted=adapted,
            out=out,
            scores=scores,
            accelerator=accelerator,
            speed=speed,
            track=display.track,
        )
    for phase, means in (("zero-shot", metrics.zero_shot), ("adapted", metrics.adapted)):
        if means:
            beside = f", exact match {means.exact_match:.1f}" if metrics.metric in ("rouge_l", "mixed") else ""
            display.done(f"{name} {phase}: {METRIC_NAMES[metrics.metric]} {means.score:.1f}{beside}")
    display.done(f"wrote {out} and {scores}")


def _output(where: Project, output: tuple[str, Cell]) -> Path:
    stage, cell = output
    return where.output(stage, cell.name)


def _sources(where: Project, params: PrepareParams) -> list[Path]:
    """The user's own files and folders that prepare reads."""
    named = (params.path, params.t0.few_shot, params.t0.promptsource, params.t0.evaluation, params.tokenizer)
    return [where.root / path for path in named if path]


def _by_reason(dropped: dict[str, str]) -> dict[str, list[str]]:
    """{reason: the tasks that are not used for it}."""
    reasons: dict[str, list[str]] = {}
    for name, reason in dropped.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _task_table(table: dict[str, Any]) -> Table:
    """Counts by role: tasks, examples by split, and what was cut or left over."""
    shown = Table(title=f"suite {table['suite']}")
    columns = ("tasks", "train", "validation", "test", "pool", "unused", "cut inputs", "cut targets")
    shown.add_column("role")
    for column in columns:
        shown.add_column(column, justify="right")
    for role in dict.fromkeys(row["role"] for row in table["tasks"]):
        total: Counter[str] = Counter()
        for row in table["tasks"]:
            if row["role"] == role:
                total.update(
                    {
                        "tasks": 1,
                        "unused": row["unused"],
                        "cut inputs": row["cut_inputs"],
                        "cut targets": row["cut_targets"],
                    }
                )
                total.update(row["splits"])
        shown.add_row(role, *(f"{total[column]:,}" for column in columns))
    return shown
