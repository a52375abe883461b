"""A project is opened here: its settings and cells are read, its stages run, its cells are loaded, its results are listed."""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Unpack
from weakref import WeakValueDictionary

from mhrctl.api.cell import Cell
from mhrctl.api.commands import LoadOptions, Settings, as_command, options, parsed, run_command
from mhrctl.api.records import CellState, Result, Routing
from mhrctl.api.stages import Stages
from mhrctl.config.cells import CellParams, grid_cells
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.evaluation.scores import PHASES
from mhrctl.tools.states import states_of

CellStage = Literal["adapt", "pretrain", "average"]


class Project(Stages):
    """A project: the folder that holds params.yaml, and everything that stages write below it.

    What is read is read at each access, so an edit of params.yaml counts from then on. Stages, `run` and `init` are the
    commands of these names: they take the same locks, write the same cards, skip what is up to date, report progress on
    standard error, and set the CPU threads of the whole process. One of them runs at a time in a process.

    Attributes:
        folder: of the project.
        quiet: whether stages report nothing.

    Examples:
        >>> project = mhrctl.Project("study")  # doctest: +SKIP
        >>> project.pretrain("mhr-h8-s0", settings={"pretrain.steps": 100}).folder  # doctest: +SKIP
        PosixPath('study/data/pretrain/mhr-h8-s0')
    """

    def __init__(self, folder: str | os.PathLike[str] = ".", *, quiet: bool = False) -> None:
        """Open a project.

        Args:
            folder: that holds params.yaml.
            quiet: whether stages report nothing.

        Raises:
            ParamsError: if params.yaml is missing, or something in it is wrong.
        """
        super().__init__(Path(folder), quiet=quiet)
        self._shared: MutableMapping[Any, Any] = WeakValueDictionary()
        self._lock = RLock()
        load_params(self._files.params)

    def __repr__(self) -> str:
        return f"<mhrctl.Project {self.folder}>"

    @property
    def params(self) -> Params:
        """The settings of params.yaml, with those of its recipe; docs/settings.md describes each.

        Raises:
            ParamsError: if something in it is wrong.
        """
        return load_params(self._files.params).params

    @property
    def cells(self) -> dict[str, CellState]:
        """The cells of the grid by name, in the order of params.yaml, with the state of each stage's output.

        Each output is read and hashed, as a command does before it skips a stage.

        Raises:
            ParamsError: if something in params.yaml is wrong.
        """
        from mhrctl.cli.threads import expected_threads

        settings = load_params(self._files.params)
        how = parsed("evaluate", [])
        threads = expected_threads(how["threads"], how["device"])
        return {cell.name: self._state(resolve_cell(settings, cell), threads) for cell in grid_cells(settings.params)}

    def cell_params(self, cell: str, *, seed: int | None = None) -> CellParams:
        """Resolve what a cell runs with: its sections `pretrain`, `adapt` and `evaluate`, with recipe, variant and overrides.

        Args:
            cell: its name: `mhr-h8-s0`, `mhr-h8` for the grid's first seed, or `mhr` if the grid has it once. It need not be
                of the grid.
            seed: where the name has none.

        Raises:
            ParamsError: if there is no such cell, or something in params.yaml is wrong.
        """
        return self._chosen("evaluate", cell, seed)

    def cell(self, cell: str, *, stage: CellStage = "adapt", seed: int | None = None, **how: Unpack[LoadOptions]) -> Cell:
        """Load a cell to answer new inputs, as `mhrctl predict` does.

        Cells that are loaded with the same options share one backbone, unless their method changes its weights.

        Args:
            cell: its name, as of `cell_params`; `backbone` is the bare backbone.
            stage: whose adapters answer: `adapt` has those of test tasks, and answers others zero-shot; `pretrain` has those of
                training tasks; `average` that of the skills.
            seed: where the name has none.
            **how: options of computing.

        Raises:
            ParamsError: if there is no such cell, it has nothing of the stage, or an option is wrong.
            ArtifactError: if an output is missing, or was made from others; says which command makes it.
        """
        from mhrctl.cli.options import open_accelerator
        from mhrctl.cli.predict import PredictStage, answering_cell

        chosen = parsed("predict", options(stage=stage, **how))
        params = None if cell == BACKBONE else self.cell_params(cell, seed=seed)
        point = answering_cell(params.cell, PredictStage(stage)) if params else None
        evaluate = params.evaluate if params else self.params.evaluate
        with self._lock, as_command(quiet=self.quiet):
            accelerator = open_accelerator(chosen["device"], chosen["threads"])
            from mhrctl.api.loading import load_cell
            from mhrctl.models.speed import Speed
            from mhrctl.training.execution import Execution

            speed = Speed(together=chosen["together"]).without(chosen["off"])
            execution = Execution(accelerator, speed, device_map=chosen["device_map"])
            return load_cell(point, evaluate, stage=stage, project=self._files, execution=execution, shared=self._shared)

    def report(self, *, settings: Settings | None = None) -> list[Result]:
        """Write the report into data/report and print the table of results, as `mhrctl report` does.

        Args:
            settings: as of `prepare`, of section `report`.

        Returns:
            The results, as `results` has them.

        Raises:
            MhrctlError: as the command, in a line: if there are no scores yet.
        """
        run_command("report", self._arguments(settings), quiet=self.quiet)
        return self.results()

    def results(self) -> list[Result]:
        """Read the scores at hand, one for each cell and phase, with every trial of a search; none where nothing is scored.

        Raises:
            ArtifactError: if scores are malformed, or of different suites or backbones.
        """
        from mhrctl.report.results import read_results

        return [
            Result(
                cell=name,
                method=cell.method,
                heads=cell.heads,
                variant=cell.variant,
                extra_steps=cell.extra_steps,
                seed=cell.seed,
                trial=cell.trial,
                phase=phase,
                scores=dict(cell.means(phase)),
                tasks=cell.own_scores(phase),
                multi_task=cell.parameters.multi_task,
                adaptation=cell.parameters.adaptation,
            )
            for name, cell in read_results(self._files.metrics).cells.items()
            for phase in PHASES
            if cell.means(phase)
        ]

    def routing(self, cell: str, *, stage: Literal["pretrain", "adapt"] = "pretrain", seed: int | None = None) -> Routing:
        """Read how much of each skill the tasks of a cell take.

        Args:
            cell: its name, as of `cell_params`.
            stage: `pretrain` is of the training tasks, `adapt` of the test tasks.
            seed: where the name has none.

        Raises:
            ParamsError: if there is no such cell, or its method has no routing.
            ArtifactError: if the stage has not run.
        """
        from mhrctl.tools.inspect import read_routing

        learned = read_routing(self.cell_params(cell, seed=seed).cell, stage, self._files)
        return Routing(list(learned.tasks), {part: learned.weights(part) for part in learned.logits})

    def _state(self, params: CellParams, threads: int | None) -> CellState:
        cell = params.cell
        return CellState(
            name=cell.name,
            method=cell.method,
            heads=cell.heads,
            variant=cell.variant,
            seed=cell.seed,
            extra_steps=cell.extra_steps,
            stages=states_of(params, self._files, threads=threads),
        )


def init(
    folder: str | os.PathLike[str],
    *,
    suite: str = "jsonl",
    tasks: str | os.PathLike[str] | None = None,
    tests: Sequence[str] = (),
    backbone: str | None = None,
    pool: Sequence[str] = (),
    no_scm: bool = False,
    quiet: bool = False,
) -> Project:
    """Make a project: params.yaml, dvc.yaml, the expanded grid, a README, under DVC, as `mhrctl init` does.

    Args:
        folder: of the project, made if it is missing. Nothing in it is overwritten.
        suite: where the tasks come from: `jsonl`, `hub`, `compositional`, `superni` or `t0`.
        tasks: a file or folder of tasks, in place of three small examples in the project.
        tests: which of them are test tasks, where they do not say so.
        backbone: a hub id or a folder, in place of a small T5 that is trained here.
        pool: LoRAs that others trained, to choose from: folders, lists, or `owner/name@revision` on the hub. Then the project
            needs `tasks` and `backbone`, and no training tasks.
        no_scm: set DVC up without git, even inside a git repository.
        quiet: as of `Project`.

    Raises:
        MhrctlError: as the command, in a line: if something is missing, or in the way.
    """
    from mhrctl.tools.init import initialise

    made = Path(folder)
    place = None if tasks is None else Path(tasks)
    initialise(made, suite, tasks=place, tests=tests, backbone=backbone, pool=pool, without_git=no_scm)
    return Project(made, quiet=quiet)
