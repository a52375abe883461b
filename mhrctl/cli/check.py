"""`mhrctl check` proves that params, grid, paths, head counts and sizes agree before anything is run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellArgument,
    CellChoice,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    NamedCellOption,
    SeedOption,
    VariantOption,
    named_cell,
    one_name,
)
from mhrctl.cli.check_record import cell_record, settings_record, sizes_record
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.options import (
    EVERY_SECTION,
    HERE,
    DeviceOption,
    ProjectOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    TogetherOption,
    open_project,
    quieten_loggers,
)
from mhrctl.cli.times import Machine, Times, large_without_gpu, memory_line, short_of_memory, times
from mhrctl.config.cells import Cell, CellParams, grid_cells
from mhrctl.config.resolve import Settings, resolve_cell, setting_at
from mhrctl.config.sections import OptimisationParams
from mhrctl.errors import ArtifactError, MhrctlError, ParamsError, counted
from mhrctl.models.speed import Speed
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.check import (
    ONE_TASK,
    check_backbone,
    check_suite,
    require_heads,
    shape_of,
    shortages,
    unknown_task,
    unmade,
    unmeasured,
    untrained,
)
from mhrctl.tools.estimate import FP32, Estimate, Shape, estimate, human_size
from mhrctl.tools.grid import differences, expand, out_of_date
from mhrctl.tools.machine import total_memory
from mhrctl.tools.operations import NOTHING, Lengths, Suite, Weights, texts_of
from mhrctl.tools.pipeline import DVC_FILE, pipeline_gaps, pipeline_refusals

UNKNOWN = "?"
Groups = Mapping[str, Sequence[CellParams]]
"""{what is the same but for the seed: cells of all seeds}."""


def check(
    name: CellArgument = None,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: NamedCellOption = None,
    project: ProjectOption = HERE,
    set_: SetOption = [],
    recipe: RecipeOption = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read all that stages have written, and say what is rotten, foreign, stale or unfinished."),
    ] = False,
    time: Annotated[
        bool,
        typer.Option("--time", help="Run a few steps of each kind of cell to say how long all takes; writes nothing."),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    together: TogetherOption = Speed.together,
    as_json: JsonOption = False,
) -> None:
    """Check params.yaml, files and the grid, and show what would run; with a cell, every setting of it."""
    quieten_loggers()
    where, settings = open_project(project, set_, recipe, reads=EVERY_SECTION)
    choice = CellChoice(method, heads, variant, seed, extra_steps, name=one_name(name, cell))
    if time and (deep or choice != CellChoice()):
        raise ParamsError("--time is of the whole project; leave it out, or what is given with it")
    if choice != CellChoice():
        _show_cell(settings, named_cell(settings, choice), where, as_json=as_json)
        return
    if deep:
        _verify(settings, where, as_json=as_json)
        return
    cells = [resolve_cell(settings, cell) for cell in grid_cells(settings.params)]
    synced = not (recipe or set_)  # the files in data/cells are of params.yaml alone
    look, known = _look(settings, where, cells, together, synced=synced), None
    if not look.problems:
        known = times(settings, where, look.suite, Machine(device, threads, together), measures=time, cells=cells)
    if as_json:
        print_json(look.record(where, cells, known))
    for problem in look.problems:
        display.complain(str(problem))
    if not as_json:
        _show(look, settings, where, cells, known)
    if look.problems:
        raise typer.Exit(2)


def _show_cell(settings: Settings, chosen: Cell, where: Project, *, as_json: bool) -> None:
    require_heads(resolve_cell(settings, chosen), settings.params, where)
    if as_json:
        print_json({"cell": chosen.name, "settings": settings_record(settings, chosen)})
    else:
        display.out.print(_settings_table(settings, chosen))


def _show(look: _Look, settings: Settings, where: Project, cells: Sequence[CellParams], known: Times | None) -> None:
    """Print the grid and what else there is to say; of a project with problems, which have no times, the warnings alone."""
    if known is None:
        for note in look.warnings:
            display.show(note)
        return
    display.out.print(_grid_table(where, _groups(cells), look.estimates))
    for note in [*look.notes, *known.lines(look.suite)]:
        display.show(note)
    every = [each for group in look.estimates.values() for each in group]
    if look.suite and look.shape and every:
        display.show(memory_line(every, cells, look.suite.texts, known.measured, known.device))
        if line := short_of_memory(every, known.measured, known.device, total=total_memory()):
            display.show(f"warning: {line}")
        if line := large_without_gpu(known, look.shape, settings.params.backbone.name):
            display.show(f"warning: {line}")
    so_far = "" if look.shape else " in what could be checked"
    display.show(f"ok: nothing to fix{so_far}{'. Next: mhrctl run' if (where.root / DVC_FILE).exists() else ''}")


@dataclass
class _Look:
    """What there is to say of a project.

    Attributes:
        problems: that must be fixed.
        notes: what else there is to say.
        estimates: {what is the same but for the seed: what each of its cells takes}; nothing if that is not known.
        shape: of the backbone, if it is known.
        suite: with the backbone, if both are known.
    """

    problems: list[MhrctlError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    estimates: Mapping[str, Sequence[Estimate]] = field(default_factory=dict)
    shape: Shape | None = None
    suite: Suite | None = None

    @property
    def warnings(self) -> list[str]:
        """Those of the notes that are worth knowing with problems too."""
        return [note for note in self.notes if note.startswith("warning:")]

    def record(self, where: Project, cells: Sequence[CellParams], known: Times | None) -> dict[str, Any]:
        """Return it as JSON has it, with the cells of the grid and what is known of their time."""
        names = [each.cell.name for group in _groups(cells).values() for each in group]
        estimates = dict(zip(names, chain(*self.estimates.values()), strict=True)) if self.estimates else {}
        return {
            "ok": not self.problems,
            "problems": list(map(str, self.problems)),
            "notes": self.notes,
            **sizes_record(self.suite, self.shape, estimates.values(), where),
            "cells": [cell_record(each, estimates.get(each.cell.name), where) for each in cells],
            "time": known and known.record(),
        }

    @contextmanager
    def complaining(self) -> Iterator[None]:
        """Take an error as a problem, if it is not known yet."""
        try:
            yield
        except MhrctlError as error:
            if str(error) not in map(str, self.problems):
                self.problems.append(error)


def _look(settings: Settings, where: Project, cells: Sequence[CellParams], together: int, *, synced: bool) -> _Look:
    """Look at everything that can be looked at before anything runs.

    Args:
        settings: of the project.
        where: the project.
        cells: of the grid.
        together: tasks in one batch.
        synced: whether data/cells and dvc.yaml are of these settings.
    """
    look, params, groups = _Look(), settings.params, _groups(cells)
    tasks: TaskCounts | None = None
    with look.complaining():
        seen = check_suite(params, where)
        tasks = seen.tasks
        look.notes += [f"not looked at: {', '.join(seen.unchecked)}"] if seen.unchecked else []
        look.notes += [f"note: {count} {what}" for what, count in seen.notes.items()]
        look.notes += [f"note: {line}" for line in shortages((cells[0] for cells in groups.values()), where)]
    with look.complaining():
        _estimate_all(look, settings, where, tasks, groups, together)
    look.problems += _unknown_tasks(settings, where, groups)
    warnings = unmeasured(cells), unmade(cells, where), untrained(cells, tasks, where)
    look.notes += [f"warning: {line}" for line in warnings if line]
    with look.complaining():
        look.notes += check_backbone(params, where)
    if synced:
        look.problems += _out_of_date(settings, where)
        refused, gaps = _pipeline(settings, where)
        look.problems += refused
        look.notes += gaps
    return look


def _verify(settings: Settings, where: Project, *, as_json: bool) -> None:
    """Show what cannot be relied on of all that stages have written.

    Raises:
        ArtifactError: if there is anything.
    """
    from mhrctl.tools.verify import verify_project

    verified = verify_project(settings, where, track=display.track)
    if as_json:
        counts = {"outputs": verified.outputs, "files": verified.files, "scores_and_logs": verified.metrics}
        print_json({"ok": not verified.problems, **counts, "problems": verified.problems})
    for problem in [] if as_json else verified.problems:
        display.out.print(f"{problem.fault:<11}{escape(problem.line)}", soft_wrap=True)
    if verified.problems:
        raise ArtifactError(verified.summary)
    display.done(verified.summary)


def _out_of_date(settings: Settings, where: Project) -> list[MhrctlError]:
    changes = differences(expand(settings, where), where)
    return [ArtifactError(out_of_date(changes, where))] if changes else []


def _pipeline(settings: Settings, where: Project) -> tuple[Sequence[MhrctlError], Sequence[str]]:
    """What DVC will refuse, and how dvc.yaml falls short of params.yaml."""
    try:
        refused = [ArtifactError(line) for line in pipeline_refusals(settings.document, where)]
        return refused, [f"warning: {gap}" for gap in pipeline_gaps(settings.params, where)]
    except MhrctlError as error:
        return [error], []


def _unknown_tasks(settings: Settings, where: Project, groups: Groups) -> list[MhrctlError]:
    for cells in groups.values():
        if said := unknown_task(cells[0].adapt.epoch_steps, where):
            return [ParamsError(f"{setting_at(settings, cells[0].cell, 'adapt', 'epoch_steps')}: {said}")]
    return []


def _groups(cells: Sequence[CellParams]) -> Groups:
    groups: dict[str, list[CellParams]] = {}
    for each in cells:
        groups.setdefault(each.cell.label, []).append(each)
    return groups


def _estimate_all(
    look: _Look, settings: Settings, where: Project, tasks: TaskCounts | None, groups: Groups, together: int
) -> None:
    """Estimate what each cell takes, as far as that can be known, and note the sums.

    Raises:
        ParamsError: if heads do not divide a layer, or a target is no layer.
    """
    backbone, look.shape = settings.params.backbone, shape_of(settings.params, where)
    shape = look.shape
    if shape is None and backbone.gguf:
        by = "the backbone stage" if backbone.source == "hub" else "the package gguf, if it is installed,"
        look.notes.append(f"heads, layers and sizes not checked: the config is in {backbone.gguf}, which {by} reads")
    elif shape is None:
        name = f"{backbone.name} at {backbone.revision}"
        look.notes.append(f"heads, layers and sizes not checked: the config of {name} is not in the hub's cache yet")
    if shape is None:
        return
    if tasks is not None:
        look.suite = Suite(Weights.of(shape.linears), texts_of(where, settings.params.prepare, tasks), tasks)
    longest = look.suite.texts.longest if look.suite else NOTHING
    estimates = {
        label: [_estimate(settings, each, shape, tasks or ONE_TASK, longest, together) for each in cells]
        for label, cells in groups.items()
    }
    if tasks is None:
        look.notes.append("heads and layers fit; sizes are estimated when `mhrctl prepare` has counted the tasks")
        return
    look.estimates = estimates
    look.notes += _totals(where, shape, tasks, [each for group in estimates.values() for each in group])


def _estimate(
    settings: Settings, each: CellParams, shape: Shape, tasks: TaskCounts, longest: Lengths, together: int
) -> Estimate:
    """What a cell takes; an error that the layers make is said with the line of the heads, or of the setting that it names."""
    try:
        return estimate(each, shape, tasks, longest, together)
    except ParamsError as error:
        section, _, key = str(error).partition(":")[0].partition(".")
        if key:
            raise ParamsError(f"{setting_at(settings, each.cell, section, key)}: {error}") from None
        heads = settings.document.at(("grid", "methods", each.cell.method, "heads", each.cell.variant))
        raise ParamsError(f"{heads}: {error}") from None


def _totals(where: Project, shape: Shape, tasks: TaskCounts, every: Sequence[Estimate]) -> list[str]:
    disk = sum({output: size for each in every for output, size in each.outputs.items()}.values())
    free = shutil.disk_usage(where.root).free
    totals = [
        f"tasks: {tasks.training:,} to train on, {tasks.test:,} to test on",
        f"backbone: {shape.weights:,} weights, {human_size(shape.size(FP32))} on disk",
        f"disk: {human_size(disk)} for all cells, and as much again in DVC's cache; {human_size(free)} are free",
        f"checkpoints: {human_size(max(each.checkpoint for each in every))} at most, while a pre-training runs",
    ]
    return [*totals, "warning: the outputs do not fit on this disk"] if disk > free else totals


def _grid_table(where: Project, groups: Groups, estimates: Mapping[str, Sequence[Estimate]]) -> Table:
    """A row for all seeds of a cell, and of its trials that take as much; at most 80 columns wide with the paper's methods."""
    number = sum(len(cells) for cells in groups.values())
    shown = Table(title=counted(number, "cell"), box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("cell", no_wrap=True)
    for column in ("seeds", "starts\nfrom"):
        shown.add_column(column)
    for column in ("pretrain\nsteps", "adapt\nsteps", "disk\na cell", "memory", "scored"):
        shown.add_column(column, justify="right", no_wrap=True)
    rows = [(label, cells, _searched(cells[0].cell), _takes(cells, estimates.get(label))) for label, cells in groups.items()]
    for (search, takes), alike in groupby(rows, key=itemgetter(2, 3)):
        trials = list(alike)
        names = [each.cell.name for _, cells, *_ in trials for each in cells]
        scored = sum(where.scores(name).exists() for name in names)
        called = trials[0][0] if len(trials) == 1 else search
        shown.add_row(display.plain(called), *takes, f"{scored}/{len(names)}")
    return shown


def _takes(cells: Sequence[CellParams], group: Sequence[Estimate] | None) -> tuple[str, ...]:
    """Of which seeds cells are, what they start from, and what each takes."""
    first = cells[0]
    return (
        _ranges([each.cell.seed for each in cells]),
        first.cell.origin[0],
        "imported" if first.pretrain.loras else _steps(first.pretrain),
        "" if first.cell.extra_steps else _steps(first.adapt),
        human_size(group[0].disk) if group else UNKNOWN,
        human_size(group[0].memory) if group else UNKNOWN,
    )


def _searched(cell: Cell) -> str:
    """What the cells of all trials and seeds are called."""
    return cell.model_copy(update={"trial": 0}).label


def _steps(params: OptimisationParams) -> str:
    """Steps and examples a step, such as `100k x 16`."""
    steps = f"{params.steps // 1000}k" if params.steps and params.steps % 1000 == 0 else str(params.steps)
    return f"{steps} x {params.batch_size * params.accumulation}"


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in their order, with three or more successive ones as a range: `0-9 42`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in runs)


def _settings_table(settings: Settings, cell: Cell) -> Table:
    """Every setting of a cell and where it comes from."""
    shown = Table(title=display.title(f"cell {cell.name}"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("setting", "value", "from"):
        shown.add_column(column, no_wrap=column == "setting")
    for section, entries in groupby(settings_record(settings, cell), key=lambda entry: entry["section"]):
        for entry in entries:
            shown.add_row(*map(display.plain, (f"{section}.{entry['key']}", str(entry["value"]), entry["from"])))
        shown.add_section()
    return shown
