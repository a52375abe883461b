"""`mhrctl grid`: the grid of params.yaml and its generated files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.cli import display
from mhrctl.cli.options import ProjectOption, open_project
from mhrctl.errors import ArtifactError

app = typer.Typer(help="The grid of params.yaml: expand it into the files that dvc.yaml reads.", no_args_is_help=True)


@app.callback()
def grid() -> None:
    """The grid of params.yaml: expand it into the files that dvc.yaml reads."""


@app.command()
def sync(
    project: ProjectOption = Path(),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if something is not in step.")] = False,
) -> None:
    """Bring data/cells in step with params.yaml; needed after each edit of params.yaml."""
    from mhrctl.grid import differences, expand
    from mhrctl.grid import sync as write

    where, settings = open_project(project, [])
    changes = differences(expand(settings, where), where) if check else write(settings, where)
    for line in changes:
        display.done(line)
    if check and changes:
        raise ArtifactError(f"{where.cell_index.parent}: not in step with params.yaml; run `mhrctl grid sync`")
    display.done("in step" if not changes else f"{len(changes)} files written")
