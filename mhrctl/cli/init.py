"""`mhrctl init` makes a ready project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.config.sources import SOURCES

SETUPS = {
    "git": "dvc init: the root of a git repository",
    "subdir": "dvc init --subdir: a DVC project of its own inside the git repository",
    "no_scm": "dvc init --no-scm: without git; README.md says how to put it under git later",
    "already": "no dvc init: a DVC project already",
}


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Of the project; made if it is missing.")] = Path(),
    suite: Annotated[
        str,
        typer.Option("--suite", "--source", help=f"Where the tasks come from: {', '.join(f'`{name}`' for name in SOURCES)}."),
    ] = "jsonl",
    path: Annotated[
        Path | None, typer.Option("--path", metavar="TASKS", help="Where the tasks are, if not in the project.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", metavar="ID", help="A model of the hub or a folder, not the suite's own.")
    ] = None,
    no_scm: Annotated[bool, typer.Option("--no-scm", help="Do without git, even inside a git repository.")] = False,
) -> None:
    """Make a project that `dvc repro` runs: params.yaml, dvc.yaml, the expanded grid, a README, under DVC."""
    from mhrctl.tools.init import initialise

    made = initialise(folder, suite, tasks=path, backbone=backbone, without_git=no_scm)
    cells = [name for name in made.files if name.parts[:2] == ("data", "cells")]
    others = [str(name) for name in made.files if name not in cells]
    display.done(f"wrote {folder}: {', '.join(others)}, data/cells ({len(cells)} files)")
    for name in made.extended:
        display.done(f"{name}: yours, with further lines")
    for name in made.kept:
        display.done(f"{name}: yours, as it was")
    display.done(SETUPS[made.setup])
    display.done("next:")
    for command in [*([] if folder.resolve() == Path.cwd() else [f"cd {folder}"]), *made.commands]:
        display.done(f"  {command}" + ("    # or, one stage a core at once, mhrctl run" if command == "dvc repro" else ""))
