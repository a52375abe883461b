"""`mhrctl align` measures how far the gradients of training tasks agree on the adapters that they share."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    CellOption,
    HeadsOption,
    MethodOption,
    SeedOption,
    VariantOption,
    chosen_cell,
)
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.options import (
    HERE,
    DeviceOption,
    ProjectOption,
    ThreadsOption,
    open_accelerator,
)
from mhrctl.cli.threads import taken_threads

if TYPE_CHECKING:
    from mhrctl.analysis.alignment import Alignment
    from mhrctl.report.table import Table


class At(StrEnum):
    """A pre-training has an adapter to be measured at each of these points."""

    START = "start"
    END = "end"
    CHECKPOINT = "checkpoint"


def align(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    at: Annotated[
        At,
        typer.Option("--at", help="When to measure: before pre-training, after it, or at the checkpoint of one in progress."),
    ] = At.END,
    tasks: Annotated[
        int | None, typer.Option("--tasks", min=2, help="Number of training tasks to draw. [default: pretrain.align_tasks]")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            "--examples", min=1, help="Training examples of each task, in one batch. [default: pretrain.align_examples]"
        ),
    ] = None,
    project: ProjectOption = HERE,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the cosine between training tasks' gradients, on the shared skills and on the adapters composed of them."""
    where, params = chosen_cell(project, CellChoice(method, heads, variant, seed, cell=cell, name=name), reads="pretrain")
    accelerator = open_accelerator(device, threads)
    from mhrctl.report.table import rich_table
    from mhrctl.tools.align import align as measure
    from mhrctl.tools.align import alignment_name

    trained = params.cell.pretrain_cell
    with logging_run(
        where.run_log("align", alignment_name(trained, at.value)), device=str(accelerator.device), threads=taken_threads()
    ):
        alignment, out = measure(
            trained,
            params.pretrain,
            at=at.value,
            project=where,
            tasks=tasks or params.pretrain.align_tasks,
            examples=examples or params.pretrain.align_examples,
            device=accelerator.device,
            track=display.track,
        )
    if as_json:
        print_json({"cell": trained.name, "at": at, "alignment": alignment, "written": out})
        return
    display.out.print(rich_table(_table(trained.name, at, alignment)))
    display.done(f"wrote {out}")


def _table(cell: str, at: At, alignment: Alignment) -> Table:
    from mhrctl.report.table import Table

    rows = [
        (on, *("-" if value is None else f"{value:.3f}" for value in (of.encoder, of.decoder, of.overall)))
        for on, of in (("shared skills", alignment.shared), ("composed adapters", alignment.composed))
    ]
    note = f"At the {at}: mean cosine over the pairs of {len(alignment.tasks)} tasks."
    return Table(f"gradient alignment: {cell}", ("gradients on", "encoder", "decoder", "all"), rows, (note,))
