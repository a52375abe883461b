"""Each method's trained numbers are counted on modules without storage: the columns of the paper's Table 6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mhrctl.adapters.adapter import Shapes, trainable
from mhrctl.config.cells import label_of
from mhrctl.config.methods import METHODS, Method
from mhrctl.config.sections import PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.attach import find_layers, linear_shapes, shape_adapters
from mhrctl.models.backbones import sized_model
from mhrctl.models.layouts import require_experts, unreachable_experts
from mhrctl.report.printed import AVERAGES, PrintedTable, one_adapter, printed_blocks
from mhrctl.report.table import Table

NOTHING = "-"
PAPER_BACKBONE = "t5-xl"
USUAL = ("full", "light")
"""The paper's layouts."""
SUPERNI_TASKS = 756
"""Training tasks of its default split."""
COLUMNS = ("method", "trained\non all", "routing\non all", "trained\non new", "paper\non all", "paper\non new")


@dataclass(frozen=True)
class Counts:
    """Counts are numbers that a method trains.

    Attributes:
        method: row of the methods table.
        heads: routing heads; None where there is no choice.
        multi_task: adapters (or weights) trained on all tasks together.
        routing: logits trained beside them, for all tasks.
        adaptation: trained for a new task.
    """

    method: str
    heads: int | None
    multi_task: int
    routing: int
    adaptation: int


@dataclass(frozen=True)
class Sizes:
    """Sizes are what counts depend on beside the backbone.

    Attributes:
        skills: K.
        rank: of a LoRA.
        tasks: training tasks, each with a row of the routing.
        datasets: of which AdapterSoup trains an adapter each.
        heads: head counts of mhr.
    """

    skills: int = 8
    rank: int = 1
    tasks: int = 313
    datasets: int = 38
    heads: Sequence[int] = (8, 32, 64)


def count(backbone: str, layouts: Sequence[str], sizes: Sizes) -> list[Table]:
    """Count what each method trains on a backbone, without its weights.

    Args:
        backbone: a size such as `t5-xl`, a hub id, or a folder.
        layouts: of the adapters; none are those of `USUAL` that the backbone has, or attention if it has experts besides.
        sizes: the rest.

    Returns:
        A table for each layout; and where the layout is that of the paper's block of SuperNI and the rest is its too, that
        block's rows, each in its own layout.

    Raises:
        ParamsError: if there is no such backbone, it has no layer of a layout, or a layout passes over its experts.
        ValueError: if a number of heads does not divide a layer.
    """
    model = sized_model(backbone)
    linears, weights = linear_shapes(model), model.num_parameters()
    experts = unreachable_experts(model.config, linears)
    for name in layouts:
        require_experts(name, experts)
    layouts = layouts or [name for name in USUAL if not experts and _chosen(linears, name)] or ["attention"]
    tables = [counts_table(backbone, name, count_methods(linears, weights, name, sizes), sizes) for name in layouts]
    if backbone != PAPER_BACKBONE:
        tables = [_with_layers(table, find_layers(linears, name)) for table, name in zip(tables, layouts, strict=True)]
    if _is_the_papers(backbone, sizes):
        blocks = [block for block in printed_blocks() if block.suite == "SuperNI" and block.layout in layouts]
        tables += [_block_table(block, linears, weights) for block in blocks]
    return tables


def count_methods(linears: Shapes, weights: int, layout: str, sizes: Sizes) -> list[Counts]:
    """Count all methods in a layout; a method that has a layout of its own ((IA)3) keeps it where the backbone has its layers.

    Args:
        linears: {layer name: (d_in, d_out)} of the backbone's linear layers.
        weights: of the backbone.
        layout: of the adapters.
        sizes: the rest.

    Raises:
        ParamsError: if the backbone has no layer of the layout.
        ValueError: if a number of heads does not divide a layer.
    """
    counts = []
    for row in METHODS.values():
        settings = _settings(row, linears, layout, sizes)
        counts += [_count(row, settings, linears, weights, heads, sizes) for heads in (sizes.heads if row.multi_head else [1])]
    return counts


def _settings(row: Method, linears: Shapes, layout: str, sizes: Sizes) -> PretrainParams:
    settings = PretrainParams(steps=0, batch_size=1, rank=sizes.rank, skills=sizes.skills, targets=layout)
    return settings.model_copy(update=_placed(row, linears))


def _placed(row: Method, linears: Shapes) -> dict[str, Any]:
    """The settings of a row's own pre-training, without targets that the backbone does not have."""
    settings = dict(row.settings.get("pretrain", {}))
    if "targets" in settings and not _chosen(linears, settings["targets"]):
        del settings["targets"]
    return settings


def _chosen(linears: Shapes, targets: str | Sequence[str]) -> Shapes:
    """The layers to adapt, if the backbone has such layers."""
    try:
        return find_layers(linears, targets)
    except ParamsError:
        return {}


def _with_layers(table: Table, layers: Shapes) -> Table:
    """Say below a table which layers it is of: how many there are of each last name, and of which sizes."""
    kinds = Counter((name.rpartition(".")[2], *shape) for name, shape in layers.items())
    parts = (f"{number} {last} {d_in} x {d_out}" for (last, d_in, d_out), number in kinds.items())
    return replace(table, notes=(*table.notes, f"Layers: {', '.join(parts)}."))


def counts_table(backbone: str, layout: str, counts: Sequence[Counts], sizes: Sizes) -> Table:
    """Return the counts beside those that the paper prints of T0."""
    blocks = [block for block in printed_blocks() if block.suite == "T0" and block.layout == layout]
    block = blocks[0] if blocks and _is_the_papers(backbone, sizes) else None
    beside = [_printed(row, block) if block else (NOTHING, NOTHING) for row in counts]
    return Table(
        f"Parameters on {backbone}, layout {layout}",
        COLUMNS,
        [_line(row, printed) for row, printed in zip(counts, beside, strict=True)],
        (
            f"{sizes.skills} skills of rank {sizes.rank}, {sizes.tasks} tasks; adapter_soup: {sizes.datasets} data sets.",
            "On a new task the paper counts the mixed LoRA of poly and mhr (as large as lora's), we what is trained;",
            "on all tasks it counts of poly_mu and mhr_mu the average that is kept, we the skills that are averaged.",
            *([block.note] if block and block.note else []),
        ),
    )


def _block_table(block: PrintedTable, linears: Shapes, weights: int) -> Table:
    """The rows of a block of the paper's Table 6, each counted in its own layout."""
    sizes = Sizes(tasks=SUPERNI_TASKS)
    lines = []
    for printed in block.rows.values():
        settings = _settings(METHODS[printed.method], linears, printed.layout or block.layout, sizes)
        row = _count(METHODS[printed.method], settings, linears, weights, printed.heads or 1, sizes)
        name, *numbers = _line(row, (printed.multi_task, printed.adaptation))
        lines.append([name if printed.layout == block.layout else f"{name}-{printed.layout}", *numbers])
    title = f"Parameters on {PAPER_BACKBONE}: Table 6 of {block.suite}, layout {block.layout}"
    return Table(title, COLUMNS, lines, (f"{sizes.skills} skills, {sizes.tasks} tasks.", block.note))


def _is_the_papers(backbone: str, sizes: Sizes) -> bool:
    return backbone == PAPER_BACKBONE and sizes == Sizes(heads=sizes.heads)


def _line(row: Counts, printed: tuple[str, str]) -> list[str]:
    return [
        label_of(row.method, row.heads),
        f"{row.multi_task:,}",
        f"{row.routing:,}" if row.routing else NOTHING,
        f"{row.adaptation:,}",
        *printed,
    ]


def _printed(row: Counts, block: PrintedTable) -> tuple[str, str]:
    """What the paper prints for a method, on all tasks and on a new one: in its Table 6, or for averages in its text."""
    other = block.rows.get("ia3" if row.method == "tfew" and "tfew" not in block.rows else row.method)
    if other and (row.heads is None or other.heads == row.heads):
        return other.multi_task, other.adaptation
    average = one_adapter(block.layout) if row.method in AVERAGES else None
    return average or NOTHING, average or NOTHING


def _count(row: Method, settings: PretrainParams, linears: Shapes, weights: int, heads: int, sizes: Sizes) -> Counts:
    tasks = sizes.datasets if row.is_private else sizes.tasks
    before, start = shape_adapters(row, settings, linears, weights, heads=heads, tasks=tasks)
    with torch.device("meta"):
        after = start.for_new_tasks([0], train_skills=row.trains == "adapter")
    return Counts(
        row.name,
        heads if row.multi_head else None,
        trainable(before.skill_parameters()),
        trainable(before.routing_parameters()),
        trainable(parameter for parameter in after.parameters() if parameter.requires_grad),
    )
