"""`mhrctl average` makes the skills of a cell one LoRA."""

from __future__ import annotations

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.inputs import watched
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.watching import unedited
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
from mhrctl.cli.options import (
    HERE,
    ForceOption,
    ProjectOption,
    SetOption,
    ThreadsOption,
    nothing_to_do,
)
from mhrctl.cli.threads import DEFAULT, prepare_threads


def average(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    cell: CellOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    threads: ThreadsOption = None,
    force: ForceOption = False,
) -> None:
    """Average the skills of a pre-training cell into one ordinary LoRA."""
    where, params = chosen_cell(project, CellChoice(method, heads, variant, seed, cell=cell, name=name), set_, reads="grid")
    averaged = params.cell.pretrain_cell
    out = where.output("average", averaged.name)
    pretrained = where.output("pretrain", averaged.name)
    if out.exists():  # else the stage says whether there can be an average
        card = read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {averaged.name}", cell=averaged)
        if nothing_to_do(provenance.of_average(pretrained, card), out, force=force):
            return
    prepare_threads(threads, "cpu")
    from mhrctl.stages.average import average as stage

    inputs = watched("average", {"pretrain": pretrained})
    with (
        locked(out),
        logging_run(where.run_log("average", averaged.name), threads=threads or DEFAULT),
        unedited(lambda: averaged, *inputs),
    ):
        stage(averaged, pretrained=pretrained, out=out)
    display.done(f"wrote {out}")
