"""The stages of a project run from here, each as its command, and all that have changed as `mhrctl run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from mhrctl.api.commands import (
    EvaluateOptions,
    Settings,
    StageOptions,
    TrainOptions,
    options,
    overrides,
    run_command,
    silenced,
)
from mhrctl.api.records import Output
from mhrctl.artifacts.cards import try_card
from mhrctl.artifacts.names import Project as Files
from mhrctl.config.cells import CellParams
from mhrctl.config.methods import BACKBONE
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError, MhrctlError, counted, listed


class RunError(MhrctlError):
    """Stages of `Project.run` have failed; those that do not depend on them have run."""


class Stages:
    """These are the stages of a project.

    Attributes:
        folder: of the project.
        quiet: whether stages report nothing.
    """

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self.folder, self.quiet = folder, quiet
        self._files = Files(folder)

    def prepare(
        self,
        *,
        settings: Settings | None = None,
        recipe: str | None = None,
        threads: int | None = None,
        force: bool = False,
    ) -> Output:
        """Read the suite's tasks, split them, put them into prompts and tokenise them.

        Args:
            settings: {setting: value} over params.yaml, such as `{"prepare.examples": 50}`: `--set` of the command.
            recipe: of the paper, over params.yaml.
            threads: CPU threads.
            force: run it even if its output is up to date.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("prepare", None, settings, recipe=recipe, threads=threads, force=force)

    def backbone(self, *, settings: Settings | None = None, track: Sequence[str] = (), **how: Unpack[StageOptions]) -> Output:
        """Fetch the frozen backbone, or train a small one on the suite.

        Args:
            settings: as of `prepare`.
            track: trackers that losses are sent to.
            **how: options of stages.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("backbone", None, settings, track=track, **how)

    def pretrain(
        self,
        cell: str,
        *,
        seed: int | None = None,
        settings: Settings | None = None,
        recipe: str | None = None,
        **how: Unpack[TrainOptions],
    ) -> Output:
        """Learn skills and routing together on the training tasks.

        Args:
            cell: its name, as of `cell_params`.
            seed: where the name has none.
            settings: as of `prepare`.
            recipe: of the paper, over params.yaml.
            **how: options of training.

        Returns:
            Where it wrote, or had written: the folder of the pre-training that the cell starts from.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("pretrain", cell, settings, seed=seed, recipe=recipe, **how)

    def average(
        self,
        cell: str,
        *,
        seed: int | None = None,
        settings: Settings | None = None,
        threads: int | None = None,
        force: bool = False,
    ) -> Output:
        """Average the skills of a pre-training into one ordinary LoRA.

        Args:
            cell: its name, as of `cell_params`.
            seed: where the name has none.
            settings: as of `prepare`.
            threads: CPU threads.
            force: run it even if its output is up to date.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("average", cell, settings, seed=seed, threads=threads, force=force)

    def index(self, *, settings: Settings | None = None, recipe: str | None = None, **how: Unpack[StageOptions]) -> Output:
        """Embed each training task's inputs, for soups and routers.

        Args:
            settings: as of `prepare`.
            recipe: of the paper, over params.yaml.
            **how: options of stages.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("index", None, settings, recipe=recipe, **how)

    def adapt(
        self,
        cell: str,
        *,
        seed: int | None = None,
        settings: Settings | None = None,
        recipe: str | None = None,
        **how: Unpack[TrainOptions],
    ) -> Output:
        """Adapt to each test task from a few examples.

        Args:
            cell: its name, as of `cell_params`.
            seed: where the name has none.
            settings: as of `prepare`.
            recipe: of the paper, over params.yaml.
            **how: options of training.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("adapt", cell, settings, seed=seed, recipe=recipe, **how)

    def evaluate(
        self,
        cell: str,
        *,
        seed: int | None = None,
        zero_shot: bool = False,
        settings: Settings | None = None,
        recipe: str | None = None,
        **how: Unpack[EvaluateOptions],
    ) -> Output:
        """Score the test splits, zero-shot and after adaptation; `results` has the scores.

        Args:
            cell: its name, as of `cell_params`; `backbone` is the bare backbone.
            seed: where the name has none.
            zero_shot: score before adaptation only.
            settings: as of `prepare`.
            recipe: of the paper, over params.yaml.
            **how: options of evaluation.

        Returns:
            Where it wrote, or had written.

        Raises:
            MhrctlError: as the command, in a line.
        """
        return self._run("evaluate", cell, settings, seed=seed, recipe=recipe, zero_shot=zero_shot, **how)

    def sync(self) -> list[str]:
        """Write the grid of params.yaml into data/cells, as `mhrctl grid sync` does: `run` needs it after an edit.

        Returns:
            What has changed, a line for each file.

        Raises:
            ParamsError: if something in params.yaml is wrong.
        """
        from mhrctl.tools.grid import sync

        return sync(load_params(self._files.params), self._files)

    def run(
        self,
        *targets: str,
        jobs: int | None = None,
        gpus: Sequence[str] = (),
        threads: int | None = None,
        keep_going: bool = True,
    ) -> dict[str, str]:
        """Run what has changed, several stages at once, as `mhrctl run` does; it is called in the main thread.

        Args:
            *targets: stages as `dvc repro` takes them, such as `evaluate@mhr-h8-s0`; all if none.
            jobs: at once, at most.
            gpus: numbers or UUIDs of GPUs, one job each.
            threads: CPU threads of a job.
            keep_going: whether other stages go on after one has failed.

        Returns:
            {stage: `done`, `cached` or `unchanged`}.

        Raises:
            RunError: if a stage has failed; names the log of the first.
            MhrctlError: as the command, in a line.
            KeyboardInterrupt: if a signal has ended it; `run` goes on from there.
        """
        from mhrctl.cli.run_view import conclude, make_view
        from mhrctl.running.pipeline import State as StageState
        from mhrctl.tools.run import Jobs, QuitError, run

        asked = Jobs(at_once=jobs, gpus=gpus, threads=threads)
        with silenced(silent=self.quiet), _commands_at_hand():
            try:
                ended = run(self.folder, targets, asked, view=make_view(), keep_going=keep_going)
            except QuitError:
                raise KeyboardInterrupt from None
            conclude(ended.progress, ended.seconds)
        if ended.signal:
            raise KeyboardInterrupt
        if ended.progress.bad():
            failed = {name: entry for name, entry in ended.progress.bad().items() if entry.state is StageState.FAILED}
            log = next((entry.log for entry in failed.values() if entry.log), None)
            raise RunError(f"{counted(len(failed), 'stage')} failed: {listed(list(failed))}{f'; see {log}' if log else ''}")
        return {name: str(entry.state) for name, entry in ended.progress.stages.items()}

    def _run(self, stage: str, cell: str | None, settings: Settings | None, **how: Any) -> Output:  # noqa: ANN401
        """Run a stage's command, and say where it wrote."""
        seed, recipe = how.get("seed"), how.get("recipe")
        point = None
        if cell is not None and cell != BACKBONE:
            cell_params = self._chosen(stage, cell, seed, settings, recipe).cell
            point = cell_params.name
            if stage in ("pretrain", "average") and not cell_params.extra_steps:
                point = cell_params.pretrain_cell.name
        arguments = [*self._arguments(settings), *options(**how), *(["--", cell] if cell is not None else [])]
        run_command(stage, arguments, quiet=self.quiet)
        called = point or cell
        folder = self._files.output(stage, called)
        card = try_card(folder)
        if card is None:
            raise ArtifactError(f"{folder}: no finished {stage} output; run `mhrctl {stage}`")
        return Output(stage, called, folder, dict(vars(card)))

    def _arguments(self, settings: Settings | None) -> list[str]:
        return [*options(project=self.folder), *options(set=overrides(settings))]

    def _chosen(
        self, stage: str, cell: str, seed: int | None, settings: Settings | None = None, recipe: str | None = None
    ) -> CellParams:
        from mhrctl.cli.cells import CellChoice, chosen_cell

        reads = "grid" if stage == "average" else stage
        return chosen_cell(self.folder, CellChoice(name=cell, seed=seed), overrides(settings), recipe, reads=reads)[1]


@contextmanager
def _commands_at_hand() -> Iterator[None]:
    """Let the stages of dvc.yaml find the command `mhrctl` of this Python, whose environment need not be on the path."""
    before, scripts = os.environ.get("PATH", os.defpath), Path(sys.executable).parent
    if (scripts / "mhrctl").exists():
        os.environ["PATH"] = os.pathsep.join((str(scripts), before))
    try:
        yield
    finally:
        os.environ["PATH"] = before
