"""`mhrctl pull` brings adapters and models from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.options import HERE, ProjectOption, quieten
from mhrctl.errors import listed

NAMED = 5
"""Files that were left out that a line names."""


def pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the hub.")],
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit. [default: main, as it is now]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: data/pull/OWNER/NAME]")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Bring an adapter, a pool or a model from the Hugging Face hub: verified, pinned, without code and pickles."""
    quieten()
    from mhrctl.tools.pull import pull as bring
    from mhrctl.tools.pull import usable

    where = out or Project(project).output("pull", repo)
    pulled = bring(repo, revision=revision, out=where)
    if not pulled.is_new:
        display.done(f"{where} is up to date: commit {pulled.commit}")
        return
    base = f" on {pulled.base}" if pulled.base else ""
    display.done(f"pulled {repo} at {pulled.commit} to {where}: {pulled.form}{base}")
    if pulled.left_out:
        display.done(f"left out, as no data that is read here: {listed(pulled.left_out, NAMED)}")
    display.done(usable(pulled))
