"""Commands that are of a cell share these options and arguments, and find out with them which cell it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.cli.completion import complete_cell, complete_method, synced_name
from mhrctl.cli.help import WHICH_CELL
from mhrctl.cli.options import open_project
from mhrctl.config.cells import Cell, CellParams, cell_called, cell_of
from mhrctl.config.fields import MAX_COUNT, MAX_SEED, MAX_WIDTH
from mhrctl.config.resolve import Settings, load_params, require_read, resolve_cell
from mhrctl.errors import ParamsError

CellArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CELL",
        help="Name of the cell: `mhr-h8-s0`, or `mhr-h8` for the grid's first seed, or `mhr` if the grid has it once."
        " Settings are those of params.yaml.",
        autocompletion=complete_cell,
        show_default=False,
    ),
]
CellArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CELL",
        help="Name of the cell: `mhr-h8-s0`, or `mhr-h8` for the grid's first seed, or `mhr` if the grid has it once; several"
        " with --harness. Settings are those of params.yaml.",
        autocompletion=complete_cell,
        show_default=False,
    ),
]
"""As `CellArgument`, of a command that may take several."""
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        "-m",
        help="Method, in place of a name: lora, poly, mhr, mhr_mu, ... (docs/methods.md).",
        autocompletion=complete_method,
        rich_help_panel=WHICH_CELL,
    ),
]
HeadsOption = Annotated[
    int | None,
    typer.Option(
        "--heads",
        min=1,
        max=MAX_WIDTH,
        help="Routings a layer, for mhr and its variants; must divide the layer's width. [default: the grid's first]",
        rich_help_panel=WHICH_CELL,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant", help="Variant of `grid.variants`, such as another layout. [default: plain]", rich_help_panel=WHICH_CELL
    ),
]
ExtraStepsOption = Annotated[
    int | None,
    typer.Option(
        "--extra-steps",
        min=1,
        max=MAX_COUNT,
        help="Steps of further training on all tasks, of a single adapter (lora, mhr_mu, ...), which is not adapted then.",
        rich_help_panel=WHICH_CELL,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=MAX_SEED, help="Seed of the cell. [default: the grid's first]", rich_help_panel=WHICH_CELL
    ),
]
CellOption = Annotated[
    str | None,
    typer.Option(
        "--cell",
        metavar="CELL",
        help="Name of the cell, with the settings of its file in data/cells, as DVC runs it.",
        autocompletion=complete_cell,
        rich_help_panel=WHICH_CELL,
    ),
]
NamedCellOption = Annotated[
    str | None,
    typer.Option("--cell", metavar="CELL", help="Name of the cell.", autocompletion=complete_cell, rich_help_panel=WHICH_CELL),
]
"""As `CellOption`, of a command that reads params.yaml alone."""


@dataclass(frozen=True)
class CellChoice:
    """What names a cell: `name`, `cell` (with the settings of its file), or axes, of which None is what the grid has first."""

    method: str | None = None
    heads: int | None = None
    variant: str | None = None
    seed: int | None = None
    extra_steps: int | None = None
    cell: str | None = None
    name: str | None = None

    @property
    def has_axes(self) -> bool:
        """Whether the method, the heads, the variant or the extra steps are given; a seed can go with a name."""
        return any(value is not None for value in (self.method, self.heads, self.variant, self.extra_steps))


def chosen_cell(
    folder: Path, choice: CellChoice, sets: Sequence[str] = (), recipe: str | None = None, *, reads: str
) -> tuple[Project, CellParams]:
    """Resolve the cell that the options name, from params.yaml or, for `--cell`, from its synced file.

    Args:
        folder: of the project.
        choice: the options.
        sets: of `--set`.
        recipe: of `--recipe`.
        reads: the section that the command reads besides the grid, to which `--set` is held.

    Raises:
        ParamsError: if there is no such cell, or one outside the grid has heads that do not divide its layers.
    """
    if choice.cell is not None:
        from mhrctl.tools.grid import read_cell

        require_alone(choice, sets, recipe)
        project = Project(folder)
        return project, read_cell(project, synced_name(project, choice.cell))
    project, settings = open_project(folder, sets, recipe, reads=list(dict.fromkeys((reads, "grid"))))
    cell = named_cell(settings, choice)
    require_read(settings, cell)
    resolved = resolve_cell(settings, cell)
    for text in (text for text in sets if text.startswith("grid.")):
        before = load_params(project.params, [other for other in sets if other is not text], recipe)
        cell_before = named_cell(before, choice)
        if before.params.grid != settings.params.grid and cell_before == cell and resolve_cell(before, cell) == resolved:
            raise ParamsError(f"--set {text}: it has no effect on cell {cell.name}; set what that cell has, or leave it out")
    if cell.heads > 1 and not project.cell_file(cell.name).exists():  # those of the grid are looked at by `mhrctl check`
        from mhrctl.tools.check import require_heads

        require_heads(resolved, settings.params, project)
    return project, resolved


def require_alone(choice: CellChoice, sets: Sequence[str], recipe: str | None) -> None:
    """Refuse what is given with `--cell`.

    Raises:
        ParamsError: if anything is.
    """
    if sets or recipe or choice.has_axes or choice.seed is not None or choice.name is not None:
        raise ParamsError(
            "--cell takes all settings from the cell's file; leave out CELL, --method, --heads, --variant, --extra-steps,"
            " --seed, --recipe and --set"
        )


def named_cell(settings: Settings, choice: CellChoice) -> Cell:
    """Return the cell that is named, or that the axes describe; what they leave open is the grid's first."""
    if choice.name is not None:
        if choice.has_axes:
            raise ParamsError(f"{choice.name} names the cell; leave out --method, --heads, --variant and --extra-steps")
        return cell_called(settings.params, choice.name, choice.seed)
    if choice.method is None:
        raise ParamsError("name the cell, such as mhr-h8-s0, or its --method; `mhrctl check` lists the cells of the grid")
    return cell_of(
        settings.params,
        choice.method,
        heads=choice.heads,
        variant=choice.variant,
        seed=choice.seed,
        extra_steps=choice.extra_steps,
    )


def one_name(argument: str | None, option: str | None) -> str | None:
    """Return the name of a cell, which a command that reads no synced file takes in two places."""
    if argument is not None and option is not None:
        raise ParamsError(f"{argument} and --cell {option} name a cell; leave one out")
    return option if argument is None else argument


def output_of(project: Project, output: tuple[str, Cell]) -> Path:
    """Name the folder of a stage's output for a cell."""
    stage, cell = output
    return project.output(stage, cell.name)


def other_of(project: Project, output: tuple[str, Cell] | None) -> Path | None:
    """Name the folder of another cell's output that settings name; None where they name none."""
    return output_of(project, output) if output else None
