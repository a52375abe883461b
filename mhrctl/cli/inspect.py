"""`mhrctl inspect`: what a routing has learned, as numbers and as heat maps."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.options import (
    CellChoice,
    CellOption,
    DeviceOption,
    HeadsOption,
    MethodOption,
    ProjectOption,
    SeedOption,
    VariantOption,
    chosen_cell,
    open_accelerator,
)
from mhrctl.report.table import Table, rich_table

if TYPE_CHECKING:
    from mhrctl.tools.inspect import Findings

COLUMNS = ("sparsity", "discreteness", "efficiency", "effective\nskills")


class Stage(StrEnum):
    """Stages that leave a routing."""

    PRETRAIN = "pretrain"
    ADAPT = "adapt"


def inspect(
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    stage: Annotated[
        Stage, typer.Option("--stage", help="The routing of the training tasks, or of the adapted test tasks beside it.")
    ] = Stage.PRETRAIN,
    layer: Annotated[
        list[str],
        typer.Option("--layer", help="Draw this layer (or what shares its routing) and no other; repeatable."),
    ] = [],
    head: Annotated[list[int], typer.Option("--head", min=1, help="Draw this head, from 1, and no other; repeatable.")] = [],
    top: Annotated[int, typer.Option("--top", min=1, help="How many pairs of tasks to show.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write, in place of data/inspect/CELL.")] = None,
    project: ProjectOption = Path(),
    device: DeviceOption = "auto",
) -> None:
    """Show what a routing has learned: sparsity, discreteness, skills in use, and which tasks are routed alike; draw it."""
    where, params = chosen_cell(project, CellChoice(method, heads, variant, seed, cell=cell), reads=stage.value)
    accelerator = open_accelerator(device)
    from mhrctl.tools.inspect import inspect as look

    own, first = params.cell, params.cell.pretrain_cell
    name = first.name if stage is Stage.PRETRAIN else f"{own.name}-adapt"
    folder = out or where.output("inspect", name)
    with logging_run(where.run_log("inspect", name), device=str(accelerator.device)):
        found = look(
            own,
            stage=stage.value,
            pretrained=where.output("pretrain", first.name),
            adapted=where.output("adapt", own.name),
            prepared=where.output("prepare"),
            index=where.output("index"),
            root=where.root,
            out=folder.resolve(),
            layers=layer,
            heads=head,
            device=str(accelerator.device),
        )
    display.out.print(rich_table(_measures_table(f"routing of {name}", found)))
    if found.pairs:
        display.out.print(rich_table(_pairs_table(found, top)))
    if found.comparison is None:
        display.done("note: no index to compare the routing with; `mhrctl index` makes one")
    display.done(f"wrote {folder}")


def _measures_table(title: str, found: Findings) -> Table:
    of = {"": found.measured} if found.training is None else {"test, ": found.measured, "training, ": found.training}
    rows = []
    for whose, measured in of.items():
        parts = {"encoder": measured.of_coder("encoder"), "decoder": measured.of_coder("decoder"), "all": measured.overall}
        for part, own in parts.items():
            if own:
                numbers = (own.sparsity, own.discreteness, own.efficiency, own.effective_skills)
                rows.append([whose + part, *(f"{number:.3f}" for number in numbers)])
    notes = [
        "Sparsity: share of gates on. Discreteness: bits a gate, 0 is decided. Efficiency: 1 uses all skills alike.",
        f"Effective: skills that a task mixes, exp(entropy of its weights), mean over tasks; of {found.skills}.",
    ]
    return Table(title, ("tasks, part" if found.training else "part", *COLUMNS), rows, notes)


def _pairs_table(found: Findings, top: int) -> Table:
    rows = []
    for pair in found.pairs[:top]:
        inputs = "-" if pair.inputs is None else f"{pair.inputs:.3f}"
        rows.append([pair.tasks[0], pair.tasks[1], f"{pair.routing:.3f}", inputs])
    notes = []
    if found.comparison:
        rho = found.comparison.correlation
        of_pairs = f"{rho.pairs:,} pairs: Spearman {rho.spearman:.2f}, p {rho.p:.3f}." if rho else "the same for all pairs."
        notes.append(f"Routing and inputs, {of_pairs}")
    if found.training is None:
        title, columns = "training tasks routed most alike", ("task", "and")
    else:
        title, columns = "test tasks, and the training task routed most like each", ("test task", "training task")
    return Table(title, (*columns, "cosine of\nrouting", "cosine of\ninputs"), rows, notes)
