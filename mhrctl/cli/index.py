"""`mhrctl index` makes the index of training tasks by their inputs, and asks it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.cells import SeedOption
from mhrctl.cli.completion import complete_task
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.once import App
from mhrctl.cli.options import (
    HERE,
    DeviceOption,
    ForceOption,
    ProjectOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    nothing_to_do,
    open_accelerator,
    open_project,
)
from mhrctl.cli.threads import expected_threads, taken_threads

app = App(help="Embed each training task's inputs, for soups and routers.", invoke_without_command=True)


@app.callback()
def index(
    context: typer.Context,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    force: ForceOption = False,
) -> None:
    """Embed each training task's inputs, for soups and routers; `mhrctl index query` asks which tasks are similar."""
    if context.invoked_subcommand:
        return
    where, settings = open_project(project, set_, recipe, reads=["index"])
    params, prepared, out = settings.params.index, where.output("prepare"), where.output("index")
    made = provenance.of_index(params.encoder, params.revision, params.examples, prepared=prepared, root=where.root)
    if nothing_to_do(made, out, threads=expected_threads(threads, device), force=force):
        return
    accelerator = open_accelerator(device, threads)
    from mhrctl.stages.index import index as stage

    with (
        locked(out),
        logging_run(where.run_log("index"), device=str(accelerator.device), threads=taken_threads()),
        unedited(lambda: open_project(project, set_, recipe, reads=["index"])[1].params.index, *made.watched),
    ):
        card = stage(
            encoder=params.encoder,
            revision=params.revision,
            examples=params.examples,
            prepared=prepared,
            root=where.root,
            out=out,
            device=str(accelerator.device),
            track=display.track,
        )
    display.done(f"wrote {out}: {len(card.facts.tasks)} tasks by {card.facts.encoder}")


@app.command()
def query(
    task: Annotated[str, typer.Option("--task", help="Training or test task to compare.", autocompletion=complete_task)],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tasks to show.")] = 5,
    seed: SeedOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which training tasks have the most similar inputs to a task; for a test task, its few-shot examples are compared."""
    where, settings = open_project(project, set_, reads=["adapt", "grid"])
    accelerator = open_accelerator(device, threads)
    from mhrctl.tools.index import query as rank

    adapt = settings.params.adapt
    nearest = rank(
        task,
        project=where,
        shots=adapt.shots,
        validation=adapt.validation,
        seed=settings.params.grid.seeds[0] if seed is None else seed,
        device=str(accelerator.device),
    )
    if as_json:
        similar = [{"training_task": name, "cosine": cosine} for name, cosine in nearest[:top]]
        print_json({"task": task, "most_similar": similar})
        return
    shown = Table(title=display.title(f"most similar to {task}"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("training task", no_wrap=True)
    shown.add_column("cosine", justify="right")
    for name, cosine in nearest[:top]:
        shown.add_row(display.plain(name), f"{cosine:.3f}")
    display.out.print(shown)
