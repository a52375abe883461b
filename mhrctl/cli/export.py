"""`mhrctl export` writes adapters as other libraries read them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    NamedCellOption,
    SeedOption,
    VariantOption,
    named_cell,
    one_name,
)
from mhrctl.cli.options import (
    HERE,
    ProjectOption,
    open_project,
    quieten,
)
from mhrctl.errors import ParamsError, counted


class Target(StrEnum):
    """Adapters can be exported to these libraries, and test tasks to the harness."""

    PEFT = "peft"
    SERVING = "serving"
    HARNESS = "harness"


class ExportStage(StrEnum):
    """Adapters of these stages can be exported."""

    PRETRAIN = "pretrain"
    AVERAGE = "average"
    ADAPT = "adapt"


def export(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: NamedCellOption = None,
    stage: Annotated[ExportStage, typer.Option("--stage", help="Stage whose adapters are written.")] = ExportStage.ADAPT,
    task: Annotated[
        list[str], typer.Option("--task", help="Write the adapter of this task only; repeatable. [default: all]")
    ] = [],
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="Form: PEFT folders; those that vLLM and SGLang load, with a routes.json; or, of no cell, the test tasks for"
            " lm-evaluation-harness.",
        ),
    ] = Target.PEFT,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write whole models, with the adapter merged into the weights.")
    ] = False,
    stack: Annotated[
        bool, typer.Option("--stack", help="Write what lies under an adapter as a folder in its own, not joined into one LoRA.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: one in data/export]")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Write adapters as PEFT folders, or merged into the backbone's weights."""
    asked = CellChoice(method, heads, variant, seed, extra_steps, name=one_name(name, cell))
    if to is Target.HARNESS:
        if asked != CellChoice() or merge or stack or stage is not ExportStage.ADAPT:
            raise ParamsError("--to harness: writes the project's test tasks, which are of no cell; leave out all but --task")
        _tasks(project, task, out)
        return
    where, settings = open_project(project)
    point = named_cell(settings, asked)
    if stage is ExportStage.ADAPT and point.extra_steps:
        raise ParamsError("--extra-steps: such a cell is not adapted; export --stage pretrain")
    chosen = point if stage is ExportStage.ADAPT or point.extra_steps else point.pretrain_cell
    quieten()
    from mhrctl.tools.export import export as write

    serving = to is Target.SERVING
    folders = write(chosen, stage=stage.value, tasks=task, merge=merge, project=where, out=out, serving=serving, stack=stack)
    what = "merged model" if merge else "PEFT folder"
    into = folders[0].parent
    if serving:
        display.done(f"wrote {counted(len(folders), what)} to {into}, and routes.json; docs/serving.md shows how to serve them")
    elif len(folders) == 1:
        display.done(f"wrote a {what} to {folders[0]}; its README.md shows how to load it")
    else:
        display.done(f"wrote {counted(len(folders), what)} to {into}; each README.md shows how to load it")


def _tasks(folder: Path, tasks: list[str], out: Path | None) -> None:
    """Write the test tasks of a project for the harness."""
    where, settings = open_project(folder, reads=["evaluate"])
    quieten("pyarrow")
    from mhrctl.tools.harness_export import export_tasks

    made = export_tasks(where, settings.params.evaluate, tasks=tasks, out=out)
    number = len(list(made.glob("*.yaml")))
    display.done(f"wrote {counted(number, 'task')} of lm-evaluation-harness to {made}; its README.md shows how to run them")
