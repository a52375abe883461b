"""`mhrctl init` makes a ready project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.completion import complete_backbone, complete_source
from mhrctl.cli.options import quieten_loggers
from mhrctl.config.sources import SOURCES

SETUPS = {
    "git": "",
    "subdir": ", a DVC project of its own in the git repository",
    "no_scm": " (git init is not done; see README.md)",
    "already": ", in the DVC project that there was",
}
WITH_GIT = ("git", "subdir")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project; made if it is missing.")] = Path(),
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            "--source",
            help=f"Where the tasks come from: {', '.join(f'`{name}`' for name in SOURCES)}.",
            autocompletion=complete_source,
        ),
    ] = "jsonl",
    path: Annotated[
        Path | None, typer.Option("--path", metavar="TASKS", help="Where the tasks are, if not in the project.")
    ] = None,
    test: Annotated[
        list[str],
        typer.Option("--test", metavar="NAME", help="A task of TASKS to learn from few examples; repeatable."),
    ] = [],
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="ID",
            help="Model of the hub, or folder of one, in place of the suite's own.",
            autocompletion=complete_backbone,
        ),
    ] = None,
    pool: Annotated[
        list[str],
        typer.Option(
            "--pool",
            metavar="LORAS",
            help="LoRAs of others to choose from: a PEFT folder, a folder of them, a list (`.jsonl`), or"
            " `owner/name@revision`; repeatable. Then TASKS need no training tasks.",
        ),
    ] = [],
    no_scm: Annotated[bool, typer.Option("--no-scm", help="Do without git, even inside a git repository.")] = False,
) -> None:
    """Make a project that `mhrctl run` runs: params.yaml, dvc.yaml, the expanded grid, a README, under DVC."""
    from mhrctl.tools.init import initialise

    quieten_loggers()
    made = initialise(folder, suite, tasks=path, tests=test, backbone=backbone, pool=pool, without_git=no_scm)
    if made.seen:
        display.done(made.seen)
    for name in made.extended:
        display.done(f"{name}: yours, with further lines")
    for name in made.kept:
        display.done(f"{name}: yours, as it was")
    display.done(f"made {folder}{SETUPS[made.setup]}; its settings are in params.yaml")
    display.done("next:")
    here = folder.resolve() == Path.cwd()
    for command in [*([] if here else [f"cd {folder}"]), *made.commands, *(["git add -A ."] if made.setup in WITH_GIT else [])]:
        display.done(f"  {command}" + ("    # or, one stage at a time, dvc repro" if command == "mhrctl run" else ""))
