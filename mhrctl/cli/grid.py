"""`mhrctl grid` keeps the grid of params.yaml, its generated files, and what cells that left it have left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.once import App
from mhrctl.cli.options import HERE, ProjectOption, open_project
from mhrctl.config.cells import grid_cells
from mhrctl.errors import ArtifactError, counted, listed
from mhrctl.tools.estimate import human_size

if TYPE_CHECKING:
    from mhrctl.tools.prune import Leftovers

SHOWN = 20
"""So many changed files are named."""

app = App(help="The grid of params.yaml: expand it into the files that dvc.yaml reads.", no_args_is_help=True)


@app.callback()
def grid() -> None:
    """The grid of params.yaml: expand it into the files that dvc.yaml reads."""


@app.command()
def sync(
    project: ProjectOption = HERE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if something is out of date.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the grid of params.yaml into data/cells; needed after each edit of params.yaml and each upgrade of mhrctl."""
    from mhrctl.tools.grid import differences, expand, named_outputs, out_of_date
    from mhrctl.tools.grid import sync as write
    from mhrctl.tools.prune import find_leftovers

    where, settings = open_project(project)
    changes = differences(expand(settings, where), where) if check else write(settings, where)
    if as_json:
        print_json({"cells": [cell.name for cell in grid_cells(settings.params)], "changes": changes, "written": not check})
    for line in changes[:SHOWN]:
        display.done(line)
    if len(changes) > SHOWN:
        display.done(f"and {len(changes) - SHOWN} more")
    if check and changes:
        raise ArtifactError(out_of_date(changes, where))
    display.done("up to date" if not changes else f"{len(changes)} files written")
    if not check and (left := find_leftovers(grid_cells(settings.params), where, named_outputs(settings)).cells):
        display.done(f"outputs of {counted(len(left), 'cell')} that the grid has not; `mhrctl grid prune` lists them")


@app.command()
def prune(
    project: ProjectOption = HERE,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Remove them without asking; else a terminal is asked, and elsewhere they are only listed."),
    ] = False,
    also_by_hand: Annotated[
        bool, typer.Option("--also-by-hand", help="Those too that were imported or made by hand, which no stage makes again.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="List each file and folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List or remove outputs, scores, logs and dvc.lock entries of cells that are not in the grid."""
    from mhrctl.tools.grid import named_outputs, require_in_step
    from mhrctl.tools.prune import find_leftovers, set_apart
    from mhrctl.tools.prune import prune as remove

    where, settings = open_project(project)
    require_in_step(settings, where)
    every = find_leftovers(grid_cells(settings.params), where, named_outputs(settings))
    left, by_hand = (every, None) if also_by_hand else set_apart(every, where)
    record = _record(left, by_hand, where)
    if not as_json:
        _list(record["cells"], verbose=verbose)
    if by_hand and by_hand.cells:
        kept = f"{listed(by_hand.cells, SHOWN)}: imported or made by hand, and not in DVC's cache"
        display.done(f"{kept}; kept, unless --also-by-hand")
    total = f"{human_size(sum(map(left.size, left.cells)))} of {counted(len(left.cells), 'cell')}"
    removes = bool(left.cells) and (yes or (not as_json and display.can_ask() and display.ask(f"{total}: remove them?")))
    if removes:
        remove(left, where)
    if as_json:
        print_json({**record, "removed": removes})
    if not left.cells:
        display.done("nothing to prune")
    elif removes:
        display.done(f"{total} removed; what DVC cached of them stays until `dvc gc -w`")
    else:
        again = " --also-by-hand" if also_by_hand else ""
        display.done(f"{total}; `mhrctl grid prune{again} --yes` removes them")


def _record(left: Leftovers, by_hand: Leftovers | None, where: Project) -> dict[str, Any]:
    """The leftovers as JSON has them."""
    cells = [
        {
            "cell": cell,
            "bytes": left.size(cell),
            "paths": [path.relative_to(where.data).as_posix() for path in left.paths.get(cell, ())],
            "lock_entries": left.entries_of(cell),
        }
        for cell in left.cells
    ]
    return {"cells": cells, "kept": by_hand.cells if by_hand else []}


def _list(cells: Sequence[Mapping[str, Any]], *, verbose: bool) -> None:
    """Print what is left of each cell: in which folders, or with each path."""
    width = max((len(each["cell"]) for each in cells), default=0)
    for each in cells:
        kinds = [*(path.partition("/")[0] for path in each["paths"]), *(["dvc.lock"] if each["lock_entries"] else [])]
        display.show(f"{each['cell']:<{width}}  {human_size(each['bytes']):>8}  {', '.join(dict.fromkeys(kinds))}")
        for line in [*each["paths"], *(f"dvc.lock: {entry}" for entry in each["lock_entries"])] if verbose else []:
            display.show(f"  {line}")
