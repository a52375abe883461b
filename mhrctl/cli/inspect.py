"""`mhrctl inspect` shows what a routing has learned, as numbers and as heat maps."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from mhrctl.analysis.routing_measures import Inspection
    from mhrctl.tools.inspect import Findings


class Stage(StrEnum):
    """These stages leave a routing."""

    PRETRAIN = "pretrain"
    ADAPT = "adapt"


def inspect(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    stage: Annotated[
        Stage, typer.Option("--stage", help="The routing of the training tasks, or of the adapted test tasks as well.")
    ] = Stage.PRETRAIN,
    layer: Annotated[
        list[str],
        typer.Option(
            "--layer", help="Draw this layer and no other, 'decoder 1 cross-attention v' or as the model names it; repeatable."
        ),
    ] = [],
    head: Annotated[list[int], typer.Option("--head", min=1, help="Draw this head, from 1, and no other; repeatable.")] = [],
    top: Annotated[int, typer.Option("--top", min=1, help="How many pairs of tasks to show.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write, in place of data/inspect/CELL.")] = None,
    project: ProjectOption = HERE,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a routing has learned: gates on, how decided, skills in use, which tasks are routed alike; draw it."""
    where, params = chosen_cell(project, CellChoice(method, heads, variant, seed, cell=cell, name=name), reads=stage.value)
    accelerator = open_accelerator(device, threads)
    from mhrctl.report.routing_tables import measures_table, pairs_table
    from mhrctl.report.table import rich_table
    from mhrctl.tools.inspect import inspect as look

    routed = params.cell.pretrain_cell.name if stage is Stage.PRETRAIN else f"{params.cell.name}-adapt"
    folder = out or where.output("inspect", routed)
    with logging_run(where.run_log("inspect", routed), device=str(accelerator.device), threads=taken_threads()):
        findings = look(
            params.cell,
            stage=stage.value,
            project=where,
            out=folder.resolve(),
            layers=layer,
            heads=head,
            device=str(accelerator.device),
        )
    if as_json:
        print_json(_record(routed, stage, findings, top=top, out=folder))
        return
    of_tests = findings.training is not None
    measures = measures_table(f"routing of {routed}", findings.measured, findings.training, skills=findings.skills)
    display.out.print(rich_table(measures))
    if findings.pairs:
        display.out.print(rich_table(pairs_table(findings.pairs[:top], findings.comparison, with_tests=of_tests)))
    if findings.comparison is None:
        display.done("note: no index to compare the routing with; `mhrctl index` makes one")
    display.done(f"wrote {folder}")


def _record(routed: str, stage: Stage, findings: Findings, *, top: int, out: Path) -> dict[str, Any]:
    """The findings as JSON has them."""
    return {
        "routing": routed,
        "stage": stage,
        "skills": findings.skills,
        "measures": _measures(findings.measured),
        "training_measures": findings.training and _measures(findings.training),
        "pairs": findings.pairs[:top],
        "comparison": findings.comparison,
        "written": out,
    }


def _measures(inspection: Inspection) -> dict[str, Any]:
    from mhrctl.adapters.granularity import CODERS

    return {**{coder: inspection.of_coder(coder) for coder in CODERS}, "all": inspection.overall}
