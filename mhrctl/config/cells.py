"""Cells are the points of the grid, with their names, and where each starts from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, get_args

from pydantic import model_validator

from mhrctl.config.fields import Closed, NonNegative, Positive, Seed, added, is_variant
from mhrctl.config.grid import PLAIN, MethodAxes
from mhrctl.config.methods import METHODS, POOLED, Method, method
from mhrctl.config.params import Params
from mhrctl.config.reading import shown
from mhrctl.config.sections import AdaptParams, EvaluateParams, PretrainParams
from mhrctl.errors import ParamsError, listed, unknown


def label_of(method: str, heads: int | None = None, variant: str = PLAIN) -> str:
    """Name what the cells of all seeds are called in tables, figures and messages: `mhr-h8-light`.

    Args:
        method: a row of the methods table, or the bare backbone.
        heads: of the routing, where there may be several.
        variant: of `grid.variants`.
    """
    return f"{method}{f'-h{heads}' if heads else ''}{'' if variant == PLAIN else f'-{variant}'}"


def method_of(label: str) -> str:
    """Return the method of a label, after which a table may say more: `mhr` of `mhr-h8` and of `mhr (light)`."""
    return re.split(r"[- ]", label, maxsplit=1)[0]


def label_called(name: str, labels: Iterable[str]) -> str | None:
    """Return which of these labels a name means: `mhr-h8`, `mhr h8`, or `mhr` where one alone is of that method; else None.

    Raises:
        ParamsError: if it can mean several.
    """
    text, known = "-".join(name.lower().split()), list(labels)
    if text in known:
        return text
    matches = [label for label in known if method_of(label) == text]
    if len(matches) > 1:
        raise ParamsError(f"{name} can be {listed(matches)}; name one of them")
    return matches[0] if matches else None


StartStage = Literal["pretrain", "average"]
"""A stage whose output a cell can start from."""
Output: TypeAlias = "tuple[StartStage, Cell]"
"""Of a stage, for a cell."""
Lowered = Literal["pretrain", "adapt", "evaluate"]
"""A stage in which an adapter can lie under that of the cell."""
LOWERED: tuple[Lowered, ...] = get_args(Lowered)
"""All of them; a later one takes what the one before has, unless its section says another."""


class Cell(Closed):
    """A cell is a point of the grid.

    Attributes:
        method: a row of the methods table.
        heads: routing heads; 1 for what is not multi-head.
        variant: of `grid.variants`.
        seed: of everything random in the cell.
        pretrain_seed: of the pre-training that it adapts from, if that is another.
        pretrain_variant: likewise; its own variant then sets nothing of pre-training.
        extra_steps: further multi-task training of the single adapter that the method starts from; such a cell is evaluated
            zero-shot and not adapted (the paper's Table 5).
        trial: of a search over settings of adaptation, counted from 1; 0 where nothing is searched.
        settings: of the trial, as (key, value).
    """

    method: str
    heads: Positive = 1
    variant: str = PLAIN
    seed: Seed = 0
    pretrain_seed: Seed | None = None
    pretrain_variant: str | None = added(None, description="of the pre-training that it adapts from, if that is another")
    extra_steps: NonNegative = 0
    trial: NonNegative = 0
    settings: tuple[tuple[str, Any], ...] = ()

    @model_validator(mode="after")
    def _fits_the_method(self) -> Cell:
        row = method(self.method)
        if not is_variant(self.variant):  # the name is a part of file names
            raise ParamsError(f"--variant {shown(self.variant)}: no name of a variant; name one of grid.variants")
        if not row.multi_head and self.heads != 1:
            raise ParamsError(f"--heads {self.heads}: {self.method} has one head; use mhr or its variants for more")
        if self.extra_steps and not row.is_single:
            raise ParamsError(f"--extra-steps: {self.method} is no single adapter; use lora, poly_mu, mhr_mu or their like")
        return self

    @property
    def row(self) -> Method:
        """The cell's row of the methods table."""
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """The name of the cell's files and DVC stages, such as `mhr_z-h8-light-s0`."""
        label = label_of(self.method, self.heads if self.row.multi_head else None, self.variant)
        extra = f"-x{self.extra_steps}" if self.extra_steps else ""
        trial = f"-t{self.trial}" if self.trial else ""
        return f"{label}{extra}{trial}-s{self.seed}"

    @property
    def label(self) -> str:
        """The name without the seed, such as `mhr_z-h8-light`: so tables, figures and messages call the cells of all seeds."""
        return self.name.rpartition("-s")[0]

    @property
    def pretrain_cell(self) -> Cell:
        """The cell of the multi-task pre-training that this one starts from."""
        seed = self.seed if self.pretrain_seed is None else self.pretrain_seed
        variant = self.variant if self.pretrain_variant is None else self.pretrain_variant
        return Cell(method=self.row.pretrain, heads=self.heads, variant=variant, seed=seed)

    @property
    def origin(self) -> tuple[StartStage, Cell]:
        """The stage and the cell whose output the method starts from, before any extra steps."""
        return self.row.start_stage, self.pretrain_cell

    @property
    def start(self) -> tuple[StartStage, Cell]:
        """The stage and the cell whose output adaptation or zero-shot evaluation starts from."""
        return ("pretrain", self) if self.extra_steps else self.origin


_CALLED = re.compile(
    r"(?P<method>[a-z0-9_]+)(-h(?P<heads>[1-9][0-9]{0,8}))?(-(?P<variant>[a-z0-9_]+?))??(-x(?P<extra_steps>[1-9][0-9]{0,8}))?"
    r"(-s(?P<seed>[0-9]{1,9}))?",
    re.ASCII,
)
"""How a cell may be called: `mhr-h8-s0`, `mhr-h8` or `mhr`."""
NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+){0,4}-s[0-9]+", re.ASCII)
"""Of a cell: the form of `Cell.name`, in which nothing can lead to another folder."""


class CellParams(Closed):
    """These params are all that decides a cell's results, as `data/cells/<cell>.json` holds it for DVC."""

    cell: Cell
    pretrain: PretrainParams
    adapt: AdaptParams
    evaluate: EvaluateParams

    def others(self) -> list[Output]:
        """Return the outputs of other cells that settings name.

        Raises:
            ParamsError: if one cannot be used; begins with the setting.
        """
        if self.pretrain.loras and self.cell.pretrain_cell.method != POOLED:
            raise ParamsError(f"pretrain.loras: {self.cell.method} takes none; set it at {POOLED}")
        named = [self.pool(), *(self.under(stage) for stage in LOWERED)]
        return [output for output in named if output]

    def under(self, stage: Lowered) -> Output | None:
        """Return the output that is frozen under the adapter of a stage, if there is one.

        Raises:
            ParamsError: if it is no single adapter, or the cell cannot lie on any; names the setting.
        """
        said = {"pretrain": self.pretrain.under, "adapt": self.adapt.under, "evaluate": self.evaluate.under}
        for section in reversed(LOWERED[: LOWERED.index(stage) + 1]):
            if name := said[section]:
                return lower_named(name, f"{section}.under {name}", self.cell)
        return None

    def pool(self) -> Output | None:
        """The output of which the skills of pre-training are at the beginning, if there is one.

        Raises:
            ParamsError: if it is no pool, or the method has no skills; names the setting.
        """
        name, row = self.pretrain.pool, self.cell.pretrain_cell.row
        if name is None or self.cell.extra_steps:  # which go on from what there is
            return None
        where = f"pretrain.pool {name}"
        if not row.takes_pool:
            raise ParamsError(f"{where}: {row.name} has no skills that could be of a pool; set it at poly, mhr or random_mu")
        cell = _named(name, where, self.cell.pretrain_cell.seed)
        if cell.method != POOLED:
            raise ParamsError(f"{where}: {cell.method} pre-trains no pool; name a cell of {POOLED}, trained here or imported")
        return "pretrain", cell


def lower_named(name: str, where: str, cell: Cell) -> Output:
    """Return the output that a setting puts under the adapters of a cell.

    Args:
        name: of a cell; without a seed, that of the upper cell's pre-training.
        where: the setting, for errors.
        cell: the upper one.

    Raises:
        ParamsError: if it is no single LoRA, or the upper cell trains none.
    """
    if not cell.row.can_be_stacked:
        raise ParamsError(f"{where}: {cell.method} cannot be trained on another adapter; set it at methods that train LoRAs")
    if cell.extra_steps:
        raise ParamsError(f"{where}: extra steps are not trained on another adapter; leave out one of them")
    lower = _named(name, where, cell.pretrain_cell.seed)
    if not lower.row.is_single or not lower.row.can_be_stacked:
        raise ParamsError(f"{where}: {lower.method} is no single LoRA; name a cell of lora, poly_mu, mhr_mu or their like")
    return lower.start


def _named(name: str, where: str, seed: int) -> Cell:
    """The cell that a setting names, with its seed or as of another one's seed.

    Raises:
        ParamsError: if it is none; says where.
    """
    match = _CALLED.fullmatch(name)
    if match is None or match["method"] not in METHODS:
        raise ParamsError(f"{where}: no name of a cell, such as lora-s{seed}")
    if METHODS[match["method"]].multi_head and not match["heads"]:
        raise ParamsError(f"{where}: name its heads too, as in {match['method']}-h8")
    numbers = {axis: int(match[axis]) for axis in ("heads", "extra_steps", "seed") if match[axis]}
    try:
        return Cell(method=match["method"], variant=match["variant"] or PLAIN, **{"seed": seed} | numbers)
    except ParamsError as error:
        raise ParamsError(f"{where}: {error}") from None


def local_loras(loras: Sequence[str]) -> list[str]:
    """Return those of `pretrain.loras` that are folders or files: an id of the hub has an `@`."""
    return [each for each in loras if "@" not in each]


def reads_index(row: Method, params: AdaptParams) -> bool:
    """Return whether an adaptation asks the index of training tasks."""
    return row.routes_queries or (row.makes_soup and params.soup_by == "inputs")


def grid_cells(params: Params) -> list[Cell]:
    """Return every cell of the grid, in the order of params.yaml."""
    return [
        Cell(
            method=name,
            heads=heads,
            variant=variant,
            seed=seed,
            pretrain_seed=params.grid.pretrain_seed,
            pretrain_variant=params.grid.pretrain_variant(variant),
            extra_steps=extra_steps,
            trial=trial if axes.search and not extra_steps else 0,
            settings=tuple(settings.items()),
        )
        for name, axes in params.grid.methods.items()
        for heads, variant in axes.points()
        for extra_steps in (0, *axes.extra_steps_of(variant))
        for trial, settings in enumerate(axes.trials if not extra_steps else [{}], 1)
        for seed in params.grid.seeds
    ]


def cell_of(
    params: Params,
    name: str,
    *,
    heads: int | None = None,
    variant: str | None = None,
    seed: int | None = None,
    extra_steps: int | None = None,
) -> Cell:
    """Return a cell by its axes; what is None is what the grid has first.

    Args:
        params: that have the grid, of which the cell need not be.
        name: of the method.
        heads: of its routing.
        variant: of `grid.variants`.
        seed: of the cell.
        extra_steps: of a single adapter.

    Raises:
        ParamsError: if there can be no such cell, or its heads are not known.
    """
    grid, row = params.grid, method(name)
    if heads is None:
        axes = grid.methods.get(name) or grid.methods.get(row.pretrain) or MethodAxes()
        known = axes.heads_of(variant or PLAIN)
        if row.multi_head and not known:
            raise ParamsError(f"--method {name} needs --heads")
        heads = known[0] if row.multi_head else 1
    return Cell(
        method=name,
        heads=heads,
        variant=variant or PLAIN,
        seed=grid.seeds[0] if seed is None else seed,
        pretrain_seed=grid.pretrain_seed,
        pretrain_variant=grid.pretrain_variant(variant or PLAIN),
        extra_steps=extra_steps or 0,
    )


def cell_called(params: Params, name: str, seed: int | None = None) -> Cell:
    """Return the cell of a name, which need not be whole: `mhr-h8-s0`, `mhr-h8` or `mhr h8` (the grid's first seed), `mhr`.

    Args:
        params: that have the grid. A cell that is named whole need not be of it.
        name: of the cell, with or without its seed, or of a method that the grid has once.
        seed: where the name has none.

    Raises:
        ParamsError: if there is no such cell, or there are several.
    """
    cells = grid_cells(params)
    text = "-".join(name.lower().split())
    by_name = {cell.name: cell for cell in [*(cell.pretrain_cell for cell in cells), *cells]}
    if text in by_name and seed is None:
        return by_name[text]
    by_label: dict[str, Cell] = {}
    for cell in cells:
        by_label.setdefault(cell.label, cell)
    if label := label_called(name, by_label):
        return by_label[label] if seed is None else by_label[label].model_copy(update={"seed": seed})
    match = _CALLED.fullmatch(text)
    if match is None or match["method"] not in METHODS or match["variant"] not in (None, *params.grid.variants):
        raise ParamsError(unknown("cell", name, by_label))
    if match["seed"] and seed is not None:
        raise ParamsError(f"--seed {seed}: the name {name} has its seed; leave one out")
    numbers = {axis: int(match[axis]) if match[axis] else None for axis in ("heads", "extra_steps", "seed")}
    if seed is not None:
        numbers["seed"] = seed
    return cell_of(params, match["method"], variant=match["variant"], **numbers)
