"""`mhrctl push` sends exports to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.options import HERE, ProjectOption, quieten
from mhrctl.errors import counted


def push(
    folder: Annotated[Path, typer.Argument(help="What to send: an export, or a folder with an export for each task.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the hub; it is made if there is none.")],
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Licence of the weights, such as apache-2.0. [default: the recorded one]"),
    ] = None,
    dataset: Annotated[
        list[str],
        typer.Option("--dataset", metavar="NAME", help="Data set of the hub that it was trained on; repeatable."),
    ] = [],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public, or send to one that is; it is private otherwise.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace all that a repository holds that mhrctl has not made.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and model card, and send nothing.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Send an export to the Hugging Face hub, in one commit, with its model card; private unless asked otherwise."""
    quieten()
    from mhrctl.tools.push import parcel
    from mhrctl.tools.push import push as send

    made = parcel(folder, repo, licence=licence, datasets=dataset, project=Project(project))
    total = f"{counted(len(made.files), 'file')}, {decimal(sum(made.sizes.values()))}"
    if dry_run:
        for name, size in made.sizes.items():
            display.done(f"{decimal(size):>10}  {name}")
        display.done(f"\n{made.card.strip()}\n")
        display.done(f"would push {total} to {repo}, in one commit; nothing was sent")
    else:
        sent = send(made, repo, public=public, replace_other=replace)
        seen = "private" if sent.is_private else "public"
        display.done(f"pushed {total} to {sent.url}, {seen}, commit {sent.commit}")
        if public and sent.is_private:
            display.done("note: the repository was there, and is private as before; its page on the hub can make it public")
        display.done(f"`mhrctl pull {repo} --revision {sent.commit}` brings it")
    if made.note:
        display.done(f"note: {made.note}")
